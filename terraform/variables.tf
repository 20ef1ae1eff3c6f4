variable "stack" {
  description = "Name of the stack, unique in the account. It is part of the names of roles and secrets, and the value of the tag drover:stack on machines."
  type        = string
  default     = "drover"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.stack)) && !can(regex("^(aws|ssm)", var.stack))
    error_message = "At most 12 characters of [a-z0-9-], because the name is part of runner names, which GitHub limits to 64 characters. CloudFormation demands a letter at the beginning, and SSM parameters of other names than aws... and ssm...."
  }
}

variable "vpc_id" {
  description = "Id of an existing VPC. Null creates a new VPC."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Ids of the existing VPC's subnets for runners. They need a route to the internet, and get the tag drover:stack. Only with vpc_id."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.vpc_id == null) == (length(var.subnet_ids) == 0)
    error_message = "Set both vpc_id and subnet_ids, or neither."
  }
}

variable "vpc_cidr" {
  description = "Address block of the new VPC, /16 to /20. Each zone gets one eighth of it: 8,187 addresses of a /16. A runner needs one address."
  type        = string
  default     = "10.83.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && tonumber(try(split("/", var.vpc_cidr)[1], 0)) >= 16 && tonumber(try(split("/", var.vpc_cidr)[1], 0)) <= 20
    error_message = "vpc_cidr must be a CIDR block of /16 to /20."
  }
}

variable "zones" {
  description = "Number of availability zones of the new VPC. More zones make it more likely that EC2 has capacity."
  type        = number
  default     = 3

  validation {
    condition     = var.zones >= 2 && var.zones <= 4
    error_message = "zones must be 2 to 4. With only one, a zone without capacity blocks all jobs."
  }
}

variable "egress" {
  description = "How runners in the new VPC reach the internet: nat (one NAT gateway), nat-per-zone (one per zone), or public (a public address for each runner, no gateway)."
  type        = string
  default     = "nat"

  validation {
    condition     = contains(["nat", "nat-per-zone", "public"], var.egress)
    error_message = "egress must be nat, nat-per-zone or public."
  }
}

variable "runner_classes" {
  description = "Classes of runners. Each gets a launch template named <stack>-<class>. architecture: x86_64 or arm64. image: last part of the SSM parameter /<stack>/image/<image>; the default is the architecture. initialize_at: rate in MiB/s (100 to 300) at which EC2 fills the root volume in advance, for a fee."
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
    error_message = "architecture must be x86_64 or arm64."
  }
  validation {
    condition     = length(var.runner_classes) > 0 && length(var.runner_classes) <= 12 && alltrue([for name in keys(var.runner_classes) : can(regex("^[a-z0-9-]{1,32}$", name))])
    error_message = "One to 12 classes are possible, because IAM limits the size of the policy that names their launch templates. A class name has at most 32 characters of [a-z0-9-]."
  }
}

variable "runner_egress_ports" {
  description = "TCP ports to which runners may connect, at any address. Drover and GitHub need only 443. Add 22 for git over SSH, 80 for package mirrors."
  type        = set(number)
  default     = [443]

  validation {
    condition     = length(var.no_proxy) == 0 || contains(var.runner_egress_ports, 443)
    error_message = "runner_egress_ports needs 443 for the names in no_proxy."
  }
}

variable "runner_ssm" {
  description = "Allow Session Manager shells on runners. Off by default, because a shell can read everything that the job can, and its agent adds seconds to each boot. After a change, run `make infrastructure`, then `make build-image`: only then does the image keep the agent."
  type        = bool
  default     = false
}

variable "builder_ssh_cidr" {
  description = "Address block from which Packer connects to the image builder by SSH: with egress = public the builder's public address, for example from 203.0.113.7/32, otherwise its private one, for example from a VPN. Null uses Session Manager, without inbound access."
  type        = string
  default     = null
}

variable "trusted_principals" {
  description = "ARNs of the principals that may assume the roles for people, for example arn:aws:iam::123456789012:role/platform-team."
  type        = list(string)
  default     = []
}

variable "github_repository" {
  description = "owner/name of the repository whose workflows may assume the roles, each from the GitHub environment with the name of the role. Null allows no workflow."
  type        = string
  default     = null
}

variable "github_owner_id" {
  description = "Id of the owner of github_repository. `make infrastructure` looks it up. GitHub puts both ids into the subject of a token if the repository was created, renamed or transferred since July 2026."
  type        = string
  default     = null

  validation {
    condition     = var.github_owner_id == null || can(regex("^[0-9]+$", var.github_owner_id))
    error_message = "github_owner_id must be a number."
  }
}

variable "github_repository_id" {
  description = "Id of github_repository. `make infrastructure` looks it up."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository_id == null || can(regex("^[0-9]+$", var.github_repository_id))
    error_message = "github_repository_id must be a number."
  }
  validation {
    condition     = (var.github_repository_id == null) == (var.github_owner_id == null)
    error_message = "Set both github_owner_id and github_repository_id, or neither."
  }
}

variable "github_oidc_provider_arn" {
  description = "ARN of the account's identity provider for token.actions.githubusercontent.com, if it already exists, for example because another stack created it. An account can have only one."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of your organisation for everything that is created: by Terraform, by `make deploy`, for the image builder and its image, and for runners with their volumes and network interfaces. Keys must not begin with drover: or aws:."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "drover:") && !startswith(lower(key), "aws:")])
    error_message = "Tags that begin with drover: are Drover's own, and AWS reserves aws:."
  }
  validation {
    # `sam deploy --tags` takes words.
    condition     = alltrue([for key, value in var.tags : can(regex("^[A-Za-z0-9_.:/+@-]+$", key)) && can(regex("^[A-Za-z0-9_.:/+@-]+$", value))])
    error_message = "Keys and values of tags may have letters, digits and _.:/+@- only."
  }
}

variable "role_path" {
  description = "IAM path of all roles, policies and instance profiles, if your organisation requires one, for example /platform/. Choose it before the first apply: a path cannot be changed."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([A-Za-z0-9_.-]+/)*$", var.role_path))
    error_message = "role_path must begin and end with a slash."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary that your organisation requires for all roles. It is used for every role and also replaces this module's own boundary of the functions, so it must allow what each role needs and should not allow much more. Functions need what template.yaml allows; machines dynamodb:GetItem and DeleteItem on the table <stack>-boot and UpdateItem on <stack>-reports; the image builder, and machines with runner_ssm, the session actions of iam.tf; people and workflows what the files iam_*.tf allow."
  type        = string
  default     = null
}

variable "ebs_kms_key_arn" {
  description = "ARN of a customer-managed KMS key that encrypts the volumes of runners and of the image builder. Required if the account encrypts volumes with such a key by default, because the roles that launch must be allowed to use it. `make infrastructure` also gives EC2 Spot a grant for it. Null: the key of EBS."
  type        = string
  default     = null

  validation {
    condition     = var.ebs_kms_key_arn == null || can(regex("^arn:aws:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.ebs_kms_key_arn))
    error_message = "ebs_kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "http_api" {
  description = "Allow the role deploy to create the HTTP API of the parameter IngestEndpoint=http-api. Off by default, because a role with this permission can change other HTTP APIs of the region."
  type        = bool
  default     = false
}

variable "state_bucket" {
  description = "S3 bucket with the Terraform state, to which the roles get access. Null if the state is elsewhere."
  type        = string
  default     = null
}

variable "https_proxy" {
  description = "URL of a proxy through which functions, agents, GitHub's runner and image builds reach AWS, GitHub and package mirrors, for example http://proxy.example.com:3128. Null: none. Open the proxy's port with runner_egress_ports."
  type        = string
  default     = null

  validation {
    condition     = var.https_proxy == null || can(regex("^https?://[^ ,/]+$", var.https_proxy))
    error_message = "https_proxy must be a URL without a path, such as http://proxy.example.com:3128."
  }
}

variable "no_proxy" {
  description = "Host names, domains and address blocks that are reached without the proxy, for example those of VPC endpoints. The metadata service is always reached without it."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.no_proxy : can(regex("^[A-Za-z0-9.*:/_-]+$", name))])
    error_message = "no_proxy must be a list of host names, domains and address blocks."
  }
}

variable "ca_certificates" {
  description = "Certificates of private CAs in PEM format, for example file(\"ca.pem\"): of a GitHub Enterprise Server, or of a proxy that intercepts TLS. Functions, agents and images trust them in addition to the public ones. Null: none."
  type        = string
  default     = null

  validation {
    condition     = var.ca_certificates == null || can(regex("-----BEGIN CERTIFICATE-----", var.ca_certificates))
    error_message = "ca_certificates must be in PEM format."
  }
}

variable "functions_subnet_ids" {
  description = "Subnets in which the functions run, if a proxy or a GitHub Enterprise Server is reachable only inside a VPC. They need a way to SQS, DynamoDB, Secrets Manager, EC2 and GitHub. Empty: outside of any VPC."
  type        = list(string)
  default     = []
}

variable "functions_security_group_ids" {
  description = "Security groups of the functions in functions_subnet_ids. They need no inbound rule."
  type        = list(string)
  default     = []

  validation {
    condition     = (length(var.functions_security_group_ids) > 0) == (length(var.functions_subnet_ids) > 0)
    error_message = "functions_security_group_ids and functions_subnet_ids must be given together."
  }
}

variable "largest_volume_gib" {
  description = "Largest root volume, in GiB, that a job of a pool with shapes may ask for."
  type        = number
  default     = 500

  validation {
    condition     = var.largest_volume_gib >= 1 && var.largest_volume_gib <= 65536 && floor(var.largest_volume_gib) == var.largest_volume_gib
    error_message = "largest_volume_gib must be a whole number from 1 to 65536, the largest size of a gp3 volume."
  }
}
