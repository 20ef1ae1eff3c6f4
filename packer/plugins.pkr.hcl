# This block has a file of its own because Debian's Packer 1.6, which can validate the other files, does not support it.
# A build needs Packer 1.10 or later: Ubuntu 24.04 rejects the SSH signatures of older versions.
packer {
  required_version = ">= 1.10.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}
