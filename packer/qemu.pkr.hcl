variable "accelerator" {
  type        = string
  default     = ""
  description = "kvm or tcg; by default kvm where there is /dev/kvm. Choose tcg where KVM is there but broken."
}

variable "machine_type" {
  type    = string
  default = "q35"
}

variable "cpu_model" {
  type        = string
  default     = "max"
  description = "What the machine sees while it is built; the image runs on any x86-64."
}

variable "qemu_http_bind_address" {
  type        = string
  default     = "127.0.0.1"
  description = "Where installers fetch their answers; a guest of QEMU reaches this machine's loopback."
}

locals {
  qemu_arguments = [
    ["-cpu", var.cpu_model],
    ["-device", "virtio-rng-pci"],
    ["-device", "virtio-net,netdev=user.0"],
    # Packer's own argument listens on every address of this machine.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
    ["-serial", "file:${local.work}/console.log"],
  ]
}

# A cloud image, told by a cidata CD whom to let in.
source "qemu" "cloud" {
  vm_name          = "${var.name}.qcow2"
  output_directory = "${local.output}/qemu-cloud"
  iso_url          = var.base_image
  iso_checksum     = var.base_checksum
  disk_image       = true
  disk_size        = "${var.disk_mib}M"
  format           = "qcow2"
  disk_discard     = "unmap"
  disk_compression = true

  accelerator      = var.accelerator
  machine_type     = var.machine_type
  cpus             = var.cpus
  memory           = var.memory_mib
  headless         = var.headless
  net_device       = "virtio-net"
  vnc_bind_address = "127.0.0.1"
  qemuargs         = local.qemu_arguments

  # nothing is typed
  boot_wait = "-1s"

  cd_label = "cidata"
  cd_files = local.cidata_files

  communicator                 = "ssh"
  ssh_username                 = var.user
  ssh_private_key_file         = "${local.work}/id_ed25519"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = var.ssh_timeout
  ssh_handshake_attempts       = 1000
  shutdown_command             = local.shutdown_command
  shutdown_timeout             = "5m"
}

# The distribution's installer, unattended.
source "qemu" "installer" {
  vm_name          = "${var.name}.qcow2"
  output_directory = "${local.output}/qemu-installer"
  iso_url          = var.iso_url
  iso_checksum     = var.iso_checksum
  disk_size        = "${var.disk_mib}M"
  format           = "qcow2"
  disk_discard     = "unmap"
  disk_compression = true

  accelerator      = var.accelerator
  machine_type     = var.machine_type
  cpus             = var.cpus
  memory           = var.memory_mib
  headless         = var.headless
  net_device       = "virtio-net"
  vnc_bind_address = "127.0.0.1"
  qemuargs         = local.qemu_arguments

  boot_wait         = "5s"
  boot_command      = var.boot_command
  http_directory    = "${local.work}/installer"
  http_bind_address = var.qemu_http_bind_address
  cd_label          = var.installer_label
  cd_files          = local.installer_files

  communicator                 = "ssh"
  ssh_username                 = var.user
  ssh_private_key_file         = "${local.work}/id_ed25519"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = var.installer_timeout
  ssh_handshake_attempts       = 1000
  shutdown_command             = local.shutdown_command
  shutdown_timeout             = "5m"
}
