# Network of the runners: a new VPC, or an existing one, in which only the subnets are tagged and nothing else changes.
#
# Only the runners' subnets have the tag drover:stack. `drover pools apply` uses all subnets with that tag, and the
# scaler's policy allows launches only into them. All other resources have the tag drover:part-of.
#
# Costs of each way out (us-east-1, list prices of November 2025, not verified since; per month of 730 hours):
#   nat           32.85 USD for the gateway, and 0.045 USD per GB. If the gateway's zone fails, all jobs fail.
#   nat-per-zone  the same for each zone. No traffic crosses zones.
#   public        3.65 USD per address, billed per second in use, and nothing per GB of inbound traffic. Runners have public
#                 addresses; the security group blocks all inbound connections.
# Traffic to S3 and DynamoDB uses free gateway endpoints: boot items, and caches and artifacts in S3 of the same region,
# do not pass the NAT gateway.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_availability_zones" "available" {
  state = "available"

  # Exclude Local Zones and Wavelength Zones, which lack most instance types.
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
  # A region may have fewer zones than var.zones.
  zones   = local.new_vpc ? slice(data.aws_availability_zones.available.names, 0, min(var.zones, length(data.aws_availability_zones.available.names))) : []
  private = local.new_vpc && var.egress != "public"
  # Zones with a NAT gateway.
  gateways = local.private ? (var.egress == "nat" ? slice(local.zones, 0, 1) : local.zones) : []

  subnet_ids = local.new_vpc ? [for zone in local.zones : aws_subnet.runners[zone].id] : var.subnet_ids
  part_of    = merge(var.tags, { "drover:part-of" = var.stack })
}

resource "aws_vpc" "runners" {
  #checkov:skip=CKV2_AWS_11:Flow logs of thousands of short-lived machines cost more than they are worth; enable them in a shared VPC
  count = local.new_vpc ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = merge(local.part_of, { Name = var.stack })
}

# The default security group allows no traffic, so an instance that is launched without a group has no network access.
resource "aws_default_security_group" "nothing" {
  count = local.new_vpc ? 1 : 0

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = "${var.stack}: nothing" })
}

# Each zone gets one eighth of the address block. Four zones use half of it; the last eighth is for the NAT gateways.
resource "aws_subnet" "runners" {
  #checkov:skip=CKV_AWS_130:Public addresses only with egress = "public"; inbound traffic is blocked in any case
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

# In an existing VPC, the same tag marks the subnets for runners.
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
  # 16 addresses for each zone, from the last eighth of the block.
  cidr_block = cidrsubnet(cidrsubnet(var.vpc_cidr, 3, 7), 25 - tonumber(split("/", var.vpc_cidr)[1]), index(local.zones, each.key))
  tags       = merge(local.part_of, { Name = "${var.stack}: gateway ${each.key}" })
}

resource "aws_internet_gateway" "runners" {
  count = local.new_vpc ? 1 : 0

  vpc_id = aws_vpc.runners[0].id
  tags   = merge(local.part_of, { Name = var.stack })
}

resource "aws_eip" "gateway" {
  #checkov:skip=CKV2_AWS_19:The address is attached to the NAT gateway
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

# Route table of the NAT gateways' subnets. With egress = "public", also that of the runners' subnets.
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
  #checkov:skip=CKV2_AWS_44:Not a VPC peering
  for_each = aws_route_table.private

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  # The gateway of the same zone, or the only gateway.
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
