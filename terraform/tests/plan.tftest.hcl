# What is planned from which variables, without any AWS: the emulator of infra/tests sees what is made of it.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"] }
  }
  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/mock" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/mock" }
  }
  mock_resource "aws_launch_template" {
    defaults = { arn = "arn:aws:ec2:eu-central-1:123456789012:launch-template/lt-mock" }
  }
}

run "by_default_runners_are_private_over_three_zones_behind_one_gateway" {
  assert {
    condition     = length(aws_subnet.runners) == 3 && alltrue([for subnet in aws_subnet.runners : !subnet.map_public_ip_on_launch])
    error_message = "three private subnets"
  }
  assert {
    condition     = length(aws_nat_gateway.gateway) == 1 && length(aws_route.private) == 3
    error_message = "one gateway for three routes"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.gateways : !contains(keys(subnet.tags), "drover:stack")])
    error_message = "no runner may be launched into a gateway's subnet"
  }
  assert {
    condition     = length(aws_iam_role.people) == 0
    error_message = "roles that nobody was named for"
  }
  assert {
    condition     = aws_launch_template.runner["runner"].name == "drover-runner" && output.launch_templates == { runner = "drover-runner" }
    error_message = "pools.toml's example names drover-runner"
  }
}

run "nat_per_zone_routes_each_zone_through_its_own_gateway" {
  variables {
    egress = "nat-per-zone"
    zones  = 2
  }
  assert {
    condition     = alltrue([for zone in ["eu-central-1a", "eu-central-1b"] : aws_route.private[zone].nat_gateway_id == aws_nat_gateway.gateway[zone].id])
    error_message = "traffic between zones"
  }
}

run "public_runners_have_addresses_no_gateway_and_still_nothing_inbound" {
  variables {
    egress           = "public"
    builder_ssh_cidr = "203.0.113.7/32"
  }
  assert {
    condition     = length(aws_nat_gateway.gateway) == 0 && alltrue([for subnet in aws_subnet.runners : subnet.map_public_ip_on_launch])
    error_message = "an address each and no gateway"
  }
  assert {
    condition     = length(aws_security_group.runner.ingress) == 0
    error_message = "something comes in"
  }
  assert {
    condition     = output.packer_variables.ssh_interface == "public_ip"
    error_message = "the builder has an address"
  }
}

run "the_smallest_block_holds_the_most_zones" {
  variables {
    vpc_cidr = "10.0.0.0/20"
    zones    = 4
    egress   = "nat-per-zone"
  }
  assert {
    condition     = aws_subnet.gateways["eu-central-1d"].cidr_block == "10.0.14.48/28" && aws_subnet.runners["eu-central-1d"].cidr_block == "10.0.6.0/23"
    error_message = "blocks overlap or do not fit"
  }
}

run "an_existing_network_is_only_tagged" {
  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  }
  assert {
    condition     = length(aws_vpc.runners) + length(aws_subnet.runners) + length(aws_nat_gateway.gateway) + length(aws_vpc_endpoint.gateway) == 0
    error_message = "something was made in somebody else's network"
  }
  assert {
    condition     = alltrue([for tag in aws_ec2_tag.runner_subnet : tag.key == "drover:stack" && tag.value == "drover"])
    error_message = "the subnets are not the stack's"
  }
}

run "classes_choose_image_volume_and_initialization" {
  variables {
    runner_classes = {
      arm  = { architecture = "arm64" }
      gpu  = { image = "gpu", volume_gb = 200 }
      fast = { initialize_at = 300 }
    }
  }
  assert {
    condition     = aws_launch_template.runner["arm"].image_id == "resolve:ssm:/drover/image/arm64" && aws_launch_template.runner["gpu"].image_id == "resolve:ssm:/drover/image/gpu"
    error_message = "the wrong image"
  }
  assert {
    condition     = aws_launch_template.runner["fast"].block_device_mappings[0].ebs[0].volume_initialization_rate == 300
    error_message = "not initialized"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.runner : template.instance_initiated_shutdown_behavior == "terminate" && template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "machines that do not end, or give their role away"
  }
}

run "shells_on_runners_are_a_choice" {
  variables {
    runner_ssm = true
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.runner_ssm) == 1
    error_message = "no Session Manager"
  }
}

run "an_account_has_one_identity_provider_for_github" {
  variables {
    github_repository        = "octo-org/infrastructure"
    github_oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && length(aws_iam_role.people) == 4
    error_message = "a second provider cannot be made"
  }
}

run "a_stack_with_a_long_name_is_refused" {
  command = plan
  variables {
    stack = "a-name-of-thirteen"
  }
  expect_failures = [var.stack]
}

run "subnets_without_their_network_are_refused" {
  command = plan
  variables {
    subnet_ids = ["subnet-0123456789abcdef0"]
  }
  expect_failures = [var.subnet_ids]
}

run "one_zone_is_refused" {
  command = plan
  variables {
    zones = 1
  }
  expect_failures = [var.zones]
}

run "an_unknown_way_out_is_refused" {
  command = plan
  variables {
    egress = "vpn"
  }
  expect_failures = [var.egress]
}
