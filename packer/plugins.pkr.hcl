# Apart from the rest, because Debian's packer (1.6) checks the rest, but does not know this block. Building needs 1.10 or
# later: earlier ones sign SSH's handshake in a way that Ubuntu 24.04 refuses.
packer {
  required_version = ">= 1.10.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}
