variable "stack" {
  description = "Name of this installation, unique in the account: roles and secrets are named after it, and machines carry it as the tag drover:stack."
  type        = string
  default     = "drover"

  validation {
    condition     = can(regex("^[a-z0-9-]{1,12}$", var.stack))
    error_message = "At most 12 of [a-z0-9-]: runner names carry it, and GitHub allows them 64 characters."
  }
}

variable "vpc_id" {
  description = "An existing VPC; null makes a new one."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "The existing VPC's subnets for runners. They are tagged drover:stack, and need a way to the internet. Only with vpc_id."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "subnet_ids go with vpc_id: both, or neither."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the new VPC, /16 to /20. A runner needs one address; a zone gets an eighth of the block, 8,187 of a /16."
  type        = string
  default     = "10.83.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && tonumber(try(split("/", var.vpc_cidr)[1], 0)) >= 16 && tonumber(try(split("/", var.vpc_cidr)[1], 0)) <= 20
    error_message = "A CIDR block of /16 to /20."
  }
}

variable "zones" {
  description = "Availability zones of the new VPC. More of them means more places to find capacity in."
  type        = number
  default     = 3

  validation {
    condition     = var.zones >= 2 && var.zones <= 4
    error_message = "2 to 4: with one, a zone without capacity stops every job."
  }
}

variable "egress" {
  description = "How runners of the new VPC reach the internet: nat (one NAT gateway), nat-per-zone, or public (an address each, no gateway)."
  type        = string
  default     = "nat"

  validation {
    condition     = contains(["nat", "nat-per-zone", "public"], var.egress)
    error_message = "nat, nat-per-zone or public."
  }
}

variable "runner_classes" {
  description = "One launch template each, named <stack>-<class>. architecture: x86_64 or arm64. image: the last part of the SSM parameter /<stack>/image/<image>, the architecture by default. initialize_at: MiB/s (100 to 300, paid) at which EC2 fills the root volume ahead of the first reads."
  type = map(object({
    architecture  = optional(string, "x86_64")
    image         = optional(string)
    volume_gb     = optional(number, 40)
    volume_iops   = optional(number, 3000)
    volume_mib_s  = optional(number, 250)
    initialize_at = optional(number)
  }))
  default = { runner = {} }

  validation {
    condition     = alltrue([for class in values(var.runner_classes) : contains(["x86_64", "arm64"], class.architecture)])
    error_message = "architecture is x86_64 or arm64."
  }
  validation {
    condition     = length(var.runner_classes) > 0 && alltrue([for name in keys(var.runner_classes) : can(regex("^[a-z0-9-]{1,32}$", name))])
    error_message = "At least one class, each named with at most 32 of [a-z0-9-]."
  }
}

variable "runner_egress_ports" {
  description = "TCP ports that runners may connect to, anywhere. 443 is all that Drover and GitHub need; 22 for git over SSH, 80 for package mirrors."
  type        = set(number)
  default     = [443]
}

variable "runner_ssm" {
  description = "Lets people open Session Manager shells on runners. A shell can read what the job can, so off by default."
  type        = bool
  default     = false
}

variable "builder_ssh_cidr" {
  description = "Where the image builder's SSH comes from, as in 203.0.113.7/32. Null: through Session Manager, with no inbound at all."
  type        = string
  default     = null
}

variable "trusted_principals" {
  description = "ARNs that may assume the roles for people, as in arn:aws:iam::123456789012:role/platform-team."
  type        = list(string)
  default     = []
}

variable "github_repository" {
  description = "owner/name of the repository whose workflows may assume the roles, each from an environment of the role's name. Null: none."
  type        = string
  default     = null
}

variable "github_oidc_provider_arn" {
  description = "The account's identity provider for token.actions.githubusercontent.com, if it has one already: an account can have one only."
  type        = string
  default     = null
}

variable "state_bucket" {
  description = "Bucket with the Terraform state, which the roles may then use. Null: state is kept elsewhere."
  type        = string
  default     = null
}
