# Two groups, as different as what they are for. What needs no rule here: DNS, time and metadata, which security groups
# do not see.

# The machine that becomes an image: it installs from anywhere, and somebody must get in to tell it what.
resource "aws_security_group" "builder" {
  #checkov:skip=CKV2_AWS_5:Packer attaches it
  name        = "${var.stack}-builder"
  description = "Drover: the machine that becomes the runners' image"
  vpc_id      = local.vpc_id
  tags        = merge(local.part_of, { Name = "${var.stack}-builder" })
}

# SSH from one address, or none: Session Manager's agent calls out.
resource "aws_vpc_security_group_ingress_rule" "builder_ssh" {
  count = var.builder_ssh_cidr == null ? 0 : 1

  security_group_id = aws_security_group.builder.id
  description       = "SSH from whoever builds"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = var.builder_ssh_cidr
}

# Debian's mirrors are plain HTTP, signed.
resource "aws_vpc_security_group_egress_rule" "builder" {
  for_each = toset(["80", "443"])

  security_group_id = aws_security_group.builder.id
  description       = "Packages and downloads"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
}

# Runners run strangers' code. Nothing comes in, so no job can reach another job's machine; what goes out is HTTPS.
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
  description       = "GitHub, AWS and what jobs need"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
  cidr_ipv4         = "0.0.0.0/0"
}
