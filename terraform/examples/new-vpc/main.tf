# Creates a network with private subnets in three zones and one NAT gateway, and roles for the workflows of a repository.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

module "drover" {
  source = "../.."

  github_repository    = "octo-org/infrastructure"
  github_owner_id      = "1234567" # gh api repos/octo-org/infrastructure --jq .owner.id
  github_repository_id = "7654321" # gh api repos/octo-org/infrastructure --jq .id
  runner_classes = {
    runner = {}
    arm    = { architecture = "arm64", volume_gb = 60 }
  }
}

output "drover" {
  value = module.drover
}
