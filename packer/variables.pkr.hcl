variable "stack" {
  type        = string
  default     = "drover"
  description = "The installation that the image is for: its boot table's name is written into it."
}

variable "region" {
  type        = string
  description = "Where the image is made, and used."
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "The value x86_64, or arm64."
}

variable "subnet_id" {
  type        = string
  description = "Where the builder runs."
}

variable "security_group_id" {
  type        = string
  description = "The builder's: nothing in, or SSH from one address."
}

variable "instance_profile" {
  type        = string
  description = "The builder's: for Session Manager, and for nothing else."
}

variable "ssh_interface" {
  type        = string
  default     = "session_manager"
  description = "The value session_manager, private_ip or public_ip."
}

variable "agent" {
  type        = string
  description = "The agent's executable for this architecture."
}

# GitHub refuses runners 30 days after a newer one came out: `make runner-version` tells how old this one is, and
# image.yml proposes the next one. The sums are those of GitHub's release notes.
variable "runner_version" {
  type        = string
  default     = "2.338.0"
  description = "GitHub's runner."
}

variable "runner_released" {
  type        = string
  default     = ""
  description = "When that runner came out, as 2026-11-25T00:00:00Z: `make build-image` asks GitHub. The janitor measures its age."
}

variable "runner_sha256" {
  type = map(string)
  default = {
    x86_64 = "af4b794c1bc41d73d40535e3fe092a39f9679cd8d965954c2aca25a05ca41d32"
    arm64  = "628b4a7258487b80c1d3c221095a7ded349f5ae0175fd3dfab708d07428f041b"
  }
  description = "SHA-256 of its archive, by architecture."
}

variable "keep_ssm" {
  type        = bool
  default     = false
  description = "Keep Session Manager's agent on runners; costs seconds of each boot, since it is a snap."
}

variable "volume_gb" {
  type        = number
  default     = 16
  description = "The image's volume. Launch templates make it larger; every block in use here is fetched at some boot."
}
