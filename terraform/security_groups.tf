# One security group for the image builder and one for runners. Security groups do not filter traffic to Amazon's DNS,
# time and metadata services, so these need no rules. A new `description` of a group would replace the group.

locals {
  # The port of the proxy, as a list; empty for a port that is open anyway.
  proxy_port = try(regex(":([0-9]+)$", var.https_proxy), [])
}

# The image builder downloads packages from the internet, and Packer connects to it by SSH.
resource "aws_security_group" "builder" {
  #checkov:skip=CKV2_AWS_5:Packer attaches it
  name        = "${var.stack}-builder"
  description = "Drover: the machine that becomes the runners' image"
  vpc_id      = local.vpc_id
  tags        = merge(local.part_of, { Name = "${var.stack}-builder" })
}

# SSH from one address. With Session Manager there is no rule, because its agent makes an outbound connection.
resource "aws_vpc_security_group_ingress_rule" "builder_ssh" {
  count = var.builder_ssh_cidr == null ? 0 : 1

  security_group_id = aws_security_group.builder.id
  description       = "SSH from the address that builds images"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = var.builder_ssh_cidr
  tags              = local.part_of
}

# Ubuntu's package mirrors use plain HTTP. The packages are signed.
resource "aws_vpc_security_group_egress_rule" "builder" {
  for_each = toset(concat(["80", "443"], local.proxy_port))

  security_group_id = aws_security_group.builder.id
  description       = "Packages and downloads"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.part_of
}

# Runners execute untrusted code. Without inbound rules, no job can connect to the machine of another job. By default,
# only HTTPS is allowed outbound.
resource "aws_security_group" "runner" {
  #checkov:skip=CKV2_AWS_5:The launch templates attach it
  name        = "${var.stack}-runner"
  description = "Drover: runners"
  vpc_id      = local.vpc_id
  tags        = merge(local.part_of, { Name = "${var.stack}-runner" })
}

resource "aws_vpc_security_group_egress_rule" "runner" {
  for_each = toset([for port in var.runner_egress_ports : tostring(port)])

  security_group_id = aws_security_group.runner.id
  description       = "GitHub, AWS and other services for jobs"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.part_of
}
