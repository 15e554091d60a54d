# What every builder needs. Values of this cluster are in image.auto.pkrvars.json beside this file.

variable "name" {
  type        = string
  description = "Names the image and its files, as in quickstart-worker."
}

variable "user" {
  type        = string
  description = "The account that Packer logs in with. It is removed before the image is finished."
}

variable "work" {
  type        = string
  default     = ""
  description = "The folder that new-key.sh filled: the throw-away SSH key and the seeds that trust it. Default: work beside this file."
}

variable "output" {
  type        = string
  default     = ""
  description = "Where images are written. Must not hold one of the same builder yet. Default: output beside this file."
}

variable "downloads" {
  type        = string
  default     = ""
  description = "The folder with the verified parts that payload/parts and payload/images name. Default: downloads beside this file."
}

variable "disk_mib" {
  type        = number
  description = "The size of the system disk, in MiB."
}

variable "cpus" {
  type    = number
  default = 2
}

variable "memory_mib" {
  type    = number
  default = 2048
}

variable "headless" {
  type        = bool
  default     = true
  description = "False shows the machine's screen, when a build hangs before SSH answers."
}

variable "ssh_timeout" {
  type        = string
  default     = "20m"
  description = "How long the machine may take until SSH answers. Installers need longer: see installer_timeout."
}

variable "installer_timeout" {
  type    = string
  default = "90m"
}

variable "pytest" {
  type        = string
  default     = "python3 -m pytest"
  description = "How to start pytest with pytest-testinfra on this machine."
}

variable "base_image" {
  type        = string
  description = "URL or path of the cloud image that the image is built from."
}

variable "base_checksum" {
  type        = string
  description = "Its checksum, or where the distribution publishes it."

  validation {
    condition     = length(var.base_checksum) == 71 && substr(var.base_checksum, 0, 7) == "sha256:" || length(var.base_checksum) == 135 && substr(var.base_checksum, 0, 7) == "sha512:" || substr(var.base_checksum, 0, 13) == "file:https://" || substr(var.base_checksum, 0, 6) == "file:/"
    error_message = "Base_checksum must be sha256:… or sha512:… with all its digits, or file:https://… of a checksum list."
  }
}

variable "iso_url" {
  type        = string
  description = "URL or path of the installer ISO."
}

variable "iso_checksum" {
  type        = string
  description = "Its checksum, or where the distribution publishes it."

  validation {
    condition     = length(var.iso_checksum) == 71 && substr(var.iso_checksum, 0, 7) == "sha256:" || length(var.iso_checksum) == 135 && substr(var.iso_checksum, 0, 7) == "sha512:" || substr(var.iso_checksum, 0, 13) == "file:https://" || substr(var.iso_checksum, 0, 6) == "file:/"
    error_message = "Iso_checksum must be sha256:… or sha512:… with all its digits, or file:https://… of a checksum list."
  }
}

variable "installer_files" {
  type        = list(string)
  description = "What the installer reads, as names below the work folder's installer folder."
}

variable "installer_label" {
  type        = string
  description = "The label of the CD by which the installer knows its files."
}

variable "boot_command" {
  type        = list(string)
  description = "What is typed at the installer's boot prompt."
}

locals {
  work      = var.work != "" ? var.work : "${path.root}/work"
  output    = var.output != "" ? var.output : "${path.root}/output"
  downloads = var.downloads != "" ? var.downloads : "${path.root}/downloads"

  # What new-key.sh made: for cloud images, and for installers.
  cidata_files    = [for file in ["user-data", "meta-data", "network-config"] : "${local.work}/cidata/${file}"]
  installer_files = [for file in var.installer_files : "${local.work}/installer/${file}"]

  # builder → what its image is
  image_type = {
    "qemu"           = "qcow2"
    "virtualbox-iso" = "ova"
    "virtualbox-ovf" = "ova"
    "vmware-iso"     = "ova"
    "vmware-vmx"     = "ova"
  }

  # The root process that finish.sh leaves behind waits for this file: by then the account has no name any more.
  shutdown_command = "touch /run/imagegen/door/halt"
}
