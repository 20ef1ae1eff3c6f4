variable "stack" {
  type        = string
  default     = "drover"
  description = "Name of the stack that the image is for. The image contains the name of the stack's boot table."
}

variable "region" {
  type        = string
  description = "Region in which the image is built and used."
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of the organisation for the builder, its volume and the image."
}

variable "kms_key_arn" {
  type        = string
  default     = ""
  description = "ARN of the KMS key that encrypts the builder's volume and the image. Empty: the key of EBS."
}

variable "https_proxy" {
  type        = string
  default     = ""
  description = "URL of a proxy for the build, the agent and the runner. Empty: none."
}

variable "no_proxy" {
  type        = string
  default     = ""
  description = "Host names, domains and address blocks that are reached without the proxy, separated by commas."
}

variable "ca_certificates" {
  type        = string
  default     = ""
  description = "Certificates of private CAs that the image trusts, base64, separated by commas."
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "Architecture of the image: x86_64 or arm64."
}

variable "instance_type" {
  type        = string
  default     = ""
  description = "Instance type of the builder. Empty: c7i.large or c7g.large, which not every zone has."
}

variable "subnet_id" {
  type        = string
  description = "Subnet of the builder."
}

variable "security_group_id" {
  type        = string
  description = "Security group of the builder. It allows no inbound traffic, or SSH from one address."
}

variable "instance_profile" {
  type        = string
  description = "Instance profile of the builder, for Session Manager only."
}

variable "ssh_interface" {
  type        = string
  default     = "session_manager"
  description = "How Packer connects to the builder: session_manager, private_ip or public_ip."
}

variable "agent" {
  type        = string
  description = "Path of the agent's executable for this architecture."
}

# GitHub refuses a runner 30 days after the release of a newer version. `make runner-version` prints the age of this one,
# and image.yml opens a pull request for each new version. The checksums are those of GitHub's release.
variable "runner_version" {
  type        = string
  default     = "2.338.0"
  description = "Version of GitHub's runner."
}

variable "agent_version" {
  type        = string
  default     = "unknown"
  description = "Version of the agent, for the tag drover:agent of the image."
}

variable "runner_released" {
  type        = string
  default     = ""
  description = "Release date of that version, for example 2026-11-25T00:00:00Z. `make build-image` reads it from GitHub. The janitor measures the runner's age from it."
}

variable "runner_sha256" {
  type = map(string)
  default = {
    x86_64 = "af4b794c1bc41d73d40535e3fe092a39f9679cd8d965954c2aca25a05ca41d32"
    arm64  = "628b4a7258487b80c1d3c221095a7ded349f5ae0175fd3dfab708d07428f041b"
  }
  description = "SHA-256 checksum of the runner's archive, by architecture."
}

variable "node_version" {
  type        = string
  default     = "24.21.0"
  description = "Version of Node.js for jobs that do not use actions/setup-node."
}

variable "node_sha256" {
  type = map(string)
  default = {
    x86_64 = "fd8e59d5a511510f6a298afb548f18c7d2b1be404d8b4a27d94fbe49f56cb2d6"
    arm64  = "6ad1325edbdb5649c379b75a237147a666c95d4f9ae8d340fef2d1575d289ad2"
  }
  description = "SHA-256 checksum of that version's archive, by architecture, from https://nodejs.org/dist/v<version>/SHASUMS256.txt."
}

variable "keep_ssm" {
  type        = bool
  default     = false
  description = "Keep the Session Manager agent in the image. It is a snap and adds seconds to each boot."
}

variable "volume_gb" {
  type        = number
  default     = 16
  description = "Size of the image's volume in GB. Launch templates enlarge it. Machines read every used block from the snapshot, so keep it small."
}
