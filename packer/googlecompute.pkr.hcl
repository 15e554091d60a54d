variable "gce_project" {
  type        = string
  default     = ""
  description = "The project that the image is made in, and paid by."
}

variable "gce_zone" {
  type    = string
  default = "europe-west1-b"
}

variable "gce_machine_type" {
  type    = string
  default = "e2-standard-2"
}

variable "gce_network" {
  type        = string
  default     = "default"
  description = "Must let port 22 in from this machine; with gce_use_iap only from Google's proxy."
}

variable "gce_use_iap" {
  type        = bool
  default     = true
  description = "Reach the build machine through Identity-Aware Proxy: it gets no public address."
}

variable "gce_account_file" {
  type        = string
  default     = ""
  sensitive   = true
  description = "Path of a service account's key file. Default: what gcloud auth application-default login left."
}

variable "gce_access_token" {
  type        = string
  default     = ""
  sensitive   = true
  description = "An OAuth 2.0 token instead, good for an hour; set it as PKR_VAR_gce_access_token, not as an argument. Packer 1.6.6 takes none."
}

variable "gce_source_image_family" {
  type        = string
  description = "The newest image of this family is the base."
}

variable "gce_source_image_project" {
  type        = string
  description = "The project that publishes it. Compute Engine checks what it publishes: there is no checksum to give."
}

variable "gce_image_family" {
  type        = string
  description = "New instances take the newest image of this family."
}

variable "gce_image_labels" {
  type    = map(string)
  default = {}
}

variable "gce_guest_os_features" {
  type        = list(string)
  default     = ["GVNIC", "UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "SEV_CAPABLE"]
  description = "What the image's kernel can do on Compute Engine. Packer 1.6.6 cannot say it."
}

# An instance of the distribution's own image; its disk becomes the image.
source "googlecompute" "image" {
  project_id              = var.gce_project
  account_file            = var.gce_account_file
  access_token            = var.gce_access_token
  source_image_family     = var.gce_source_image_family
  source_image_project_id = [var.gce_source_image_project]
  image_name              = "${var.gce_image_family}-${formatdate("YYYYMMDDhhmmss", timestamp())}"
  image_family            = var.gce_image_family
  image_labels            = var.gce_image_labels
  image_guest_os_features = var.gce_guest_os_features
  image_description       = "Made by imagegen: ${var.name}"

  zone             = var.gce_zone
  machine_type     = var.gce_machine_type
  network          = var.gce_network
  disk_size        = ceil(var.disk_mib / 1024)
  disk_type        = "pd-balanced"
  omit_external_ip = var.gce_use_iap
  use_internal_ip  = var.gce_use_iap
  use_iap          = var.gce_use_iap
  use_os_login     = false
  enable_vtpm      = true
  labels           = var.gce_image_labels
  state_timeout    = "10m"
  # the build machine needs nobody's rights
  disable_default_service_account = true
  metadata = {
    enable-oslogin         = "FALSE"
    block-project-ssh-keys = "TRUE"
    serial-port-enable     = "FALSE"
  }

  communicator                 = "ssh"
  ssh_username                 = var.user
  ssh_private_key_file         = "${local.work}/id_ed25519"
  ssh_disable_agent_forwarding = true
  ssh_timeout                  = var.ssh_timeout
}
