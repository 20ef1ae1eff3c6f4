# Uses an existing network. Its subnets need a route to the internet. They get the tag drover:stack; nothing else in the
# network changes. If another Terraform configuration manages the subnets, it must ignore that tag:
# ignore_tags { key_prefixes = ["drover:"] } in its provider block.

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
  description = "Id of the VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the VPC for runners, in at least two zones."
  type        = list(string)
}

module "drover" {
  source = "../.."

  stack              = "shared"
  vpc_id             = var.vpc_id
  subnet_ids         = var.subnet_ids
  trusted_principals = ["arn:aws:iam::123456789012:role/platform-team"]
  # The addresses inside the network from which images are built, for example those of a VPN: Packer connects to the
  # builder's private address. Without this line it uses Session Manager, which needs no inbound access.
  builder_ssh_cidr = "10.8.0.0/24"
  state_bucket     = "octo-org-terraform"

  # For a proxy or a GitHub Enterprise Server that is reachable only inside the network: the functions run there, too.
  functions_subnet_ids         = var.subnet_ids
  functions_security_group_ids = ["sg-0123456789abcdef0"]

  # Jobs of pools with shapes may ask for a root volume of up to this many GiB.
  largest_volume_gib = 1000

  # What the organisation's policies require.
  tags                 = { CostCenter = "4711" }
  role_path            = "/platform/"
  ebs_kms_key_arn      = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
  permissions_boundary = "arn:aws:iam::123456789012:policy/organisation"
}

output "drover" {
  value = module.drover
}
