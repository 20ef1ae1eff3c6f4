# This block has a file of its own because Debian's Packer 1.6, which can validate the other files, does not support it.
# A build needs Packer 1.11 or later, to install the plugin from a file. Ubuntu 24.04 rejects the SSH signatures of Packer
# before 1.10.
packer {
  required_version = ">= 1.11.0"

  required_plugins {
    amazon = {
      source = "github.com/hashicorp/amazon"
      # infra/packer-plugin installs this version and verifies HashiCorp's signature.
      version = "= 1.8.2"
    }
  }
}
