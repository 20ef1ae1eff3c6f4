# Where runners live. A new VPC unless one is given; then only its subnets are tagged, and its routes are its owner's.
#
# Only runners' subnets carry the tag drover:stack: `drover pools apply` takes every subnet that has it, and the scaler's
# policy lets it launch into nothing else. Everything else says drover:part-of.
#
# What egress costs (us-east-1, list prices of November 2025, not verified since; a month of 730 h):
#   nat           32.85 USD a gateway, and 0.045 USD per GB through it. One gateway: if its zone fails, so does every job.
#   nat-per-zone  the same per zone, and no traffic between zones.
#   public        3.65 USD per address and month in use, by the second, and nothing per GB coming in. Runners have public
#                 addresses, but the security group lets nothing in.
# S3 and DynamoDB go through gateway endpoints, which are free: the boot item, and caches and artifacts kept in S3 of the
# region, never pass the NAT.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_availability_zones" "available" {
  state = "available"

  # Local and Wavelength zones lack most instance types.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id

  new_vpc = var.vpc_id == null
  vpc_id  = local.new_vpc ? aws_vpc.runners[0].id : var.vpc_id
  # A region may have fewer than were asked for.
  zones   = local.new_vpc ? slice(data.aws_availability_zones.available.names, 0, min(var.zones, length(data.aws_availability_zones.available.names))) : []
  private = local.new_vpc && var.egress != "public"
  # Zones with a gateway.
  gateways = local.private ? (var.egress == "nat" ? slice(local.zones, 0, 1) : local.zones) : []

  subnet_ids = local.new_vpc ? [for zone in local.zones : aws_subnet.runners[zone].id] : var.subnet_ids
  part_of    = { "drover:part-of" = var.stack }
}

resource "aws_vpc" "runners" {
  #checkov:skip=CKV2_AWS_11:Flow logs of thousands of short-lived machines cost more than they tell; turn them on for the VPC you share
  count = local.new_vpc ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = merge(local.part_of, { Name = var.stack })
}

# Whatever is launched into this VPC without naming a group can talk to nobody.
resource "aws_default_security_group" "nothing" {
  count = local.new_vpc ? 1 : 0

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = "${var.stack}: nothing" })
}

# An eighth of the block for each zone: four zones take half, and the last eighth is left for the gateways.
resource "aws_subnet" "runners" {
  #checkov:skip=CKV_AWS_130:Public addresses only where egress = "public" was chosen; nothing is let in either way
  for_each = toset(local.zones)

  vpc_id                  = aws_vpc.runners[0].id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.vpc_cidr, 3, index(local.zones, each.key))
  map_public_ip_on_launch = !local.private
  tags = merge(local.part_of, {
    Name           = "${var.stack}: runners ${each.key}"
    "drover:stack" = var.stack
  })
}

# An existing VPC's subnets become the stack's by the same tag.
resource "aws_ec2_tag" "runner_subnet" {
  count = local.new_vpc ? 0 : length(var.subnet_ids)

  resource_id = var.subnet_ids[count.index]
  key         = "drover:stack"
  value       = var.stack
}

resource "aws_subnet" "gateways" {
  for_each = toset(local.gateways)

  vpc_id            = aws_vpc.runners[0].id
  availability_zone = each.key
  # 16 addresses each, from the block's last eighth.
  cidr_block = cidrsubnet(cidrsubnet(var.vpc_cidr, 3, 7), 25 - tonumber(split("/", var.vpc_cidr)[1]), index(local.zones, each.key))
  tags       = merge(local.part_of, { Name = "${var.stack}: gateway ${each.key}" })
}

resource "aws_internet_gateway" "runners" {
  count = local.new_vpc ? 1 : 0

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = var.stack })
}

resource "aws_eip" "gateway" {
  #checkov:skip=CKV2_AWS_19:It is the NAT gateway's
  for_each = toset(local.gateways)

  domain = "vpc"
  tags   = merge(local.part_of, { Name = "${var.stack}: gateway ${each.key}" })
}

resource "aws_nat_gateway" "gateway" {
  for_each = toset(local.gateways)

  allocation_id = aws_eip.gateway[each.key].id
  subnet_id     = aws_subnet.gateways[each.key].id
  tags          = merge(local.part_of, { Name = "${var.stack}: ${each.key}" })

  depends_on = [aws_internet_gateway.runners]
}

# The way out of the gateways' subnets, or of the runners' where they are public.
resource "aws_route_table" "public" {
  count = local.new_vpc ? 1 : 0

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = "${var.stack}: public" })
}

resource "aws_route" "public" {
  count = local.new_vpc ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.runners[0].id
}

resource "aws_route_table_association" "gateways" {
  for_each = toset(local.gateways)

  subnet_id      = aws_subnet.gateways[each.key].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table" "private" {
  for_each = toset(local.private ? local.zones : [])

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = "${var.stack}: runners ${each.key}" })
}

resource "aws_route" "private" {
  #checkov:skip=CKV2_AWS_44:Not a peering
  for_each = aws_route_table.private

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  # Its own zone's gateway, or the only one.
  nat_gateway_id = aws_nat_gateway.gateway[contains(local.gateways, each.key) ? each.key : local.gateways[0]].id
}

resource "aws_route_table_association" "runners" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.runners[each.key].id
  route_table_id = local.private ? aws_route_table.private[each.key].id : aws_route_table.public[0].id
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(local.new_vpc ? ["s3", "dynamodb"] : [])

  vpc_id            = aws_vpc.runners[0].id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = local.private ? [for table in aws_route_table.private : table.id] : [aws_route_table.public[0].id]
  tags              = merge(local.part_of, { Name = "${var.stack}: ${each.key}" })
}
