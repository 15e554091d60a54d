variable "vmware_guest_os_type" {
  type        = string
  description = "The guestOS of the .vmx."
}

variable "vmware_hardware_version" {
  type        = string
  default     = "19"
  description = "19 is the least that the plug-in makes; read by vSphere 7.0 U2, Workstation 16.2 and everything newer."
}

variable "vmware_http_bind_address" {
  type        = string
  default     = "0.0.0.0"
  description = "Where installers fetch their answers. A guest of VMware cannot reach this machine's loopback: set the address of vmnet8 to serve nobody else. What is served holds a public key and no secret."
}

variable "machine" {
  type        = string
  default     = "base.vmx"
  description = "A powered-off machine with cloud-init, made from the base image's vmdk. For vmware-vmx."
}

locals {
  vmware_export = ["--noImageFiles", "--noNvramFile", "--shaAlgorithm=SHA256"]
}

# The distribution's installer, unattended; exported as one OVA, for which ovftool must be installed.
source "vmware-iso" "installer" {
  vm_name          = var.name
  output_directory = "${local.output}/vmware-iso-installer"
  guest_os_type    = var.vmware_guest_os_type
  version          = var.vmware_hardware_version
  iso_url          = var.iso_url
  iso_checksum     = var.iso_checksum
  disk_size        = var.disk_mib
  # growable, in one file
  disk_type_id      = "0"
  disk_adapter_type = "lsilogic"
  format            = "ova"
  ovftool_options   = local.vmware_export

  cpus                           = var.cpus
  memory                         = var.memory_mib
  headless                       = var.headless
  network                        = "nat"
  network_adapter_type           = "vmxnet3"
  vnc_bind_address               = "127.0.0.1"
  serial                         = "file:${abspath(local.work)}/console.log"
  vmx_remove_ethernet_interfaces = false
  vmx_data = {
    "disk.enableUUID" = "TRUE"
  }
  # the console's file is on this machine only
  vmx_data_post = {
    "serial0.present" = "FALSE"
  }

  boot_wait         = "5s"
  boot_command      = var.boot_command
  http_directory    = "${local.work}/installer"
  http_bind_address = var.vmware_http_bind_address
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

# A machine that is there, told by a cidata CD whom to let in. The original is not changed.
source "vmware-vmx" "machine" {
  vm_name          = var.name
  output_directory = "${local.output}/vmware-vmx-machine"
  source_path      = var.machine
  format           = "ova"
  ovftool_options  = local.vmware_export

  headless         = var.headless
  vnc_bind_address = "127.0.0.1"
  vmx_data = {
    "numvcpus"         = "${var.cpus}"
    "memsize"          = "${var.memory_mib}"
    "serial0.present"  = "TRUE"
    "serial0.fileType" = "file"
    "serial0.fileName" = "${abspath(local.work)}/console.log"
  }
  vmx_data_post = {
    "serial0.present" = "FALSE"
  }

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
