variable "virtualbox_guest_os_type" {
  type        = string
  description = "As VBoxManage list ostypes names it."
}

variable "virtualbox_http_bind_address" {
  type        = string
  default     = "127.0.0.1"
  description = "Where installers fetch their answers; a guest behind VirtualBox's NAT reaches this machine's loopback."
}

variable "appliance" {
  type        = string
  default     = "base.ova"
  description = "An OVF or OVA with cloud-init, as 'imagegen build --role base --format ova' makes it. For virtualbox-ovf."
}

variable "appliance_checksum" {
  type        = string
  default     = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
  description = "The appliance's checksum; the default fits none."

  validation {
    condition     = length(var.appliance_checksum) == 71 && substr(var.appliance_checksum, 0, 7) == "sha256:" || length(var.appliance_checksum) == 135 && substr(var.appliance_checksum, 0, 7) == "sha512:"
    error_message = "Appliance_checksum must be sha256:… or sha512:… with all its digits."
  }
}

locals {
  virtualbox_start = [
    ["modifyvm", "{{ .Name }}", "--audio", "none", "--usb", "off", "--rtcuseutc", "on"],
    ["modifyvm", "{{ .Name }}", "--uart1", "0x3F8", "4", "--uartmode1", "file", "${local.work}/console.log"],
  ]
  # the console's file is on this machine only
  virtualbox_end = [
    ["modifyvm", "{{ .Name }}", "--uart1", "off"],
  ]
  # Neither the CD with the seed nor VirtualBox's own hardware family belongs into the appliance.
  virtualbox_export = ["--manifest", "--ovf20", "--vsys", "0", "--product", var.name]
}

# The distribution's installer, unattended; exported as one OVA.
source "virtualbox-iso" "installer" {
  vm_name          = var.name
  output_directory = "${local.output}/virtualbox-iso-installer"
  guest_os_type    = var.virtualbox_guest_os_type
  iso_url          = var.iso_url
  iso_checksum     = var.iso_checksum
  disk_size        = var.disk_mib
  format           = "ova"
  export_opts      = local.virtualbox_export

  cpus                     = var.cpus
  memory                   = var.memory_mib
  headless                 = var.headless
  hard_drive_interface     = "sata"
  hard_drive_discard       = true
  hard_drive_nonrotational = true
  guest_additions_mode     = "disable"
  vrdp_bind_address        = "127.0.0.1"
  vboxmanage               = local.virtualbox_start
  vboxmanage_post          = local.virtualbox_end

  boot_wait         = "5s"
  boot_command      = var.boot_command
  http_directory    = "${local.work}/installer"
  http_bind_address = var.virtualbox_http_bind_address
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

# An appliance, told by a cidata CD whom to let in.
source "virtualbox-ovf" "appliance" {
  vm_name          = var.name
  output_directory = "${local.output}/virtualbox-ovf-appliance"
  source_path      = var.appliance
  checksum         = var.appliance_checksum
  format           = "ova"
  export_opts      = local.virtualbox_export

  headless             = var.headless
  guest_additions_mode = "disable"
  vrdp_bind_address    = "127.0.0.1"
  # what an installer's machine has by attributes of its own
  vboxmanage = concat(
    [["modifyvm", "{{ .Name }}", "--cpus", "${var.cpus}", "--memory", "${var.memory_mib}"]],
    local.virtualbox_start,
  )
  vboxmanage_post = local.virtualbox_end

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
