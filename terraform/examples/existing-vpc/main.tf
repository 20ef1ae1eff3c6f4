# Into a network that is there already. Its subnets need a way to the internet; they get the tag drover:stack, and nothing
# else of it is touched. If another Terraform manages them, it must leave that tag alone:
# ignore_tags { key_prefixes = ["drover:"] } in its provider.

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

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Its subnets for runners, in at least two zones."
  type        = list(string)
}

module "drover" {
  source = "../.."

  stack              = "shared"
  vpc_id             = var.vpc_id
  subnet_ids         = var.subnet_ids
  trusted_principals = ["arn:aws:iam::123456789012:role/platform-team"]
  builder_ssh_cidr   = "203.0.113.7/32"
  state_bucket       = "octo-org-terraform"
}

output "drover" {
  value = module.drover
}
