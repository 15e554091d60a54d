build {
  # Packer takes no variables in these two. imagegen writes the set of roles as the name, so that
  # -only='worker.*' and -only='*.qemu.*' work, and leaves out the builders of other targets.
  name = "ROLES"
  sources = [
    "source.qemu.cloud",
    "source.qemu.installer",
    "source.virtualbox-iso.installer",
    "source.virtualbox-ovf.appliance",
    "source.vmware-iso.installer",
    "source.vmware-vmx.machine",
    "source.googlecompute.image",
  ]

  # What the tests in the end need on this machine.
  provisioner "shell-local" {
    environment_vars = [
      "IMAGEGEN_TESTS=${path.root}/verify",
      "IMAGEGEN_PYTEST=${var.pytest}",
    ]
    inline = ["sh \"$IMAGEGEN_TESTS/run.sh\" check"]
  }

  # First boot must be over: it holds the lock of the package manager and makes the account.
  provisioner "shell" {
    inline = [
      "if command -v cloud-init >/dev/null; then timeout 600 cloud-init status --wait >/dev/null || echo \"cloud-init status: $?\"; fi",
      "sudo -n true || { echo 'the build user cannot become root: see cidata/user-data' >&2; exit 1; }",
      "mkdir -p /var/tmp/imagegen/downloads",
    ]
  }

  provisioner "file" {
    source      = "${path.root}/payload/"
    destination = "/var/tmp/imagegen"
  }

  provisioner "file" {
    source      = "${local.downloads}/"
    destination = "/var/tmp/imagegen/downloads"
  }

  provisioner "shell" {
    inline = ["sudo -n sh /var/tmp/imagegen/install.sh"]
  }

  # Removes the build user and every trace of the build; root stays reachable with the throw-away key
  # until the machine is switched off.
  provisioner "shell" {
    inline = ["sudo -n sh /var/tmp/imagegen/finish.sh"]
  }

  # Looks at the finished system with testinfra; the build fails when something is not as the plan says.
  provisioner "shell-local" {
    environment_vars = [
      "IMAGEGEN_TARGET=ssh://root@${build.Host}:${build.Port}",
      "IMAGEGEN_KEY=${local.work}/id_ed25519",
      "IMAGEGEN_TESTS=${path.root}/verify",
      "IMAGEGEN_PYTEST=${var.pytest}",
    ]
    inline = ["sh \"$IMAGEGEN_TESTS/run.sh\""]
  }

  # Beside each image: its sum, for sha256sum --check. An image in a cloud has no file to sum up.
  post-processors {
    post-processor "checksum" {
      checksum_types = ["sha256"]
      output         = "${local.output}/${source.type}-${source.name}/${var.name}.sha256"
      except         = ["googlecompute.image"]
    }
    post-processor "manifest" {
      output     = "${local.output}/${var.name}.manifest.json"
      strip_path = true
    }
  }

  # And a copy of the image to send around; -except=compress leaves it out. VMware's builders make more files than the
  # image, which is why it is named.
  post-processors {
    post-processor "artifice" {
      name   = "compress"
      files  = ["${local.output}/${source.type}-${source.name}/${var.name}.${local.image_type[source.type]}"]
      except = ["googlecompute.image"]
    }
    post-processor "compress" {
      output              = "${local.output}/${source.type}-${source.name}/${var.name}.${local.image_type[source.type]}.gz"
      keep_input_artifact = true
      except              = ["googlecompute.image"]
    }
    post-processor "checksum" {
      checksum_types = ["sha256"]
      output         = "${local.output}/${source.type}-${source.name}/${var.name}.sha256"
      except         = ["googlecompute.image"]
    }
  }
}
