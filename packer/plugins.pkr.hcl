# Left out with --packer-compat: Packer before 1.7 brings these builders itself and knows no plug-ins.
packer {
  # from 1.14 on, "packer init" finds plug-ins where HashiCorp publishes them since then
  required_version = ">= 1.14.0"

  required_plugins {
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "= 1.2.7"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "= 1.1.4"
    }
    virtualbox = {
      source  = "github.com/hashicorp/virtualbox"
      version = "= 1.1.5"
    }
    vmware = {
      source  = "github.com/vmware/vmware"
      version = "= 2.1.0"
    }
  }
}
