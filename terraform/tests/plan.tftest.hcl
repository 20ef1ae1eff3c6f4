# Checks the plan for different variables, without AWS. infra/tests applies the examples to an emulator.

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

run "defaults_create_private_subnets_in_three_zones_with_one_nat_gateway" {
  assert {
    condition     = length(aws_subnet.runners) == 3 && alltrue([for subnet in aws_subnet.runners : !subnet.map_public_ip_on_launch])
    error_message = "expected three private subnets"
  }
  assert {
    condition     = length(aws_nat_gateway.gateway) == 1 && length(aws_route.private) == 3
    error_message = "expected one NAT gateway for three routes"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.gateways : !contains(keys(subnet.tags), "drover:stack")])
    error_message = "the subnet of a NAT gateway must not have the tag drover:stack"
  }
  assert {
    condition     = length(aws_iam_role.people) == 0
    error_message = "no roles without principals that may assume them"
  }
  assert {
    condition     = !output.packer_variables.keep_ssm
    error_message = "the Session Manager agent would delay each boot"
  }
  assert {
    condition     = aws_launch_template.runner["runner"].name == "drover-runner" && output.launch_templates == { runner = "drover-runner" }
    error_message = "the example pools.toml uses the launch template drover-runner"
  }
}

run "nat_per_zone_routes_each_zone_through_its_own_gateway" {
  variables {
    egress = "nat-per-zone"
    zones  = 2
  }
  assert {
    condition     = alltrue([for zone in ["eu-central-1a", "eu-central-1b"] : aws_route.private[zone].nat_gateway_id == aws_nat_gateway.gateway[zone].id])
    error_message = "each zone must use its own NAT gateway"
  }
}

run "public_runners_have_addresses_but_no_nat_gateway_and_no_inbound_rule" {
  variables {
    egress           = "public"
    builder_ssh_cidr = "203.0.113.7/32"
  }
  assert {
    condition     = length(aws_nat_gateway.gateway) == 0 && alltrue([for subnet in aws_subnet.runners : subnet.map_public_ip_on_launch])
    error_message = "runners must have public addresses and no NAT gateway"
  }
  assert {
    condition     = length(aws_security_group.runner.ingress) == 0
    error_message = "the runners' security group must have no inbound rule"
  }
  assert {
    condition     = output.packer_variables.ssh_interface == "public_ip"
    error_message = "Packer must connect to the builder's public address"
  }
}

run "the_smallest_address_block_has_room_for_four_zones" {
  variables {
    vpc_cidr = "10.0.0.0/20"
    zones    = 4
    egress   = "nat-per-zone"
  }
  assert {
    condition     = aws_subnet.gateways["eu-central-1d"].cidr_block == "10.0.14.48/28" && aws_subnet.runners["eu-central-1d"].cidr_block == "10.0.6.0/23"
    error_message = "subnets overlap or do not fit into the block"
  }
}

run "in_an_existing_network_only_tags_are_added" {
  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0", "subnet-0fedcba9876543210"]
  }
  assert {
    condition     = length(aws_vpc.runners) + length(aws_subnet.runners) + length(aws_nat_gateway.gateway) + length(aws_vpc_endpoint.gateway) == 0
    error_message = "resources were created in an existing network"
  }
  assert {
    condition     = alltrue([for tag in aws_ec2_tag.runner_subnet : tag.key == "drover:stack" && tag.value == "drover"])
    error_message = "the subnets do not have the tag drover:stack"
  }
}

run "runner_classes_set_image_volume_and_initialization_rate" {
  variables {
    runner_classes = {
      arm  = { architecture = "arm64" }
      gpu  = { image = "gpu", volume_gb = 200 }
      fast = { initialize_at = 300 }
    }
  }
  assert {
    condition     = aws_launch_template.runner["arm"].image_id == "resolve:ssm:/drover/image/arm64" && aws_launch_template.runner["gpu"].image_id == "resolve:ssm:/drover/image/gpu"
    error_message = "the launch template uses the wrong image"
  }
  assert {
    condition     = aws_launch_template.runner["fast"].block_device_mappings[0].ebs[0].volume_initialization_rate == 300
    error_message = "the initialization rate is not set"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.runner : template.instance_initiated_shutdown_behavior == "terminate" && template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "launch templates must terminate on shutdown, require IMDSv2 and use hop limit 1"
  }
}

run "runner_ssm_lets_runners_offer_sessions" {
  variables {
    runner_ssm = true
  }
  assert {
    condition     = length(aws_iam_role_policy.runner_session) == 1
    error_message = "the runners cannot offer sessions"
  }
  assert {
    condition     = output.packer_variables.keep_ssm
    error_message = "the image has no Session Manager agent"
  }
}

run "an_existing_identity_provider_is_used" {
  variables {
    github_repository        = "octo-org/infrastructure"
    github_oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && length(aws_iam_role.people) == 4
    error_message = "AWS allows only one identity provider for GitHub per account"
  }
}

run "one_github_id_without_the_other_is_rejected" {
  command = plan
  variables {
    github_repository    = "octo-org/infrastructure"
    github_repository_id = "7654321"
  }
  expect_failures = [var.github_repository_id]
}

run "a_stack_name_of_more_than_12_characters_is_rejected" {
  command = plan
  variables {
    stack = "a-name-of-thirteen"
  }
  expect_failures = [var.stack]
}

run "tags_that_begin_with_drover_are_rejected" {
  command = plan
  variables {
    tags = { "drover:stack" = "other" }
  }
  expect_failures = [var.tags]
}

run "a_path_without_slashes_is_rejected" {
  command = plan
  variables {
    role_path = "platform"
  }
  expect_failures = [var.role_path]
}

run "subnet_ids_without_vpc_id_are_rejected" {
  command = plan
  variables {
    subnet_ids = ["subnet-0123456789abcdef0"]
  }
  expect_failures = [var.subnet_ids]
}

run "a_single_zone_is_rejected" {
  command = plan
  variables {
    zones = 1
  }
  expect_failures = [var.zones]
}

run "an_unknown_egress_is_rejected" {
  command = plan
  variables {
    egress = "vpn"
  }
  expect_failures = [var.egress]
}

run "proxy_and_private_cas_reach_functions_and_images" {
  variables {
    https_proxy     = "http://proxy.example.com:3128"
    no_proxy        = ["sts.eu-central-1.amazonaws.com", "10.0.0.0/8"]
    ca_certificates = "# two CAs\n-----BEGIN CERTIFICATE-----\nMIIB\nAg==\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\r\nMIIC\r\n-----END CERTIFICATE-----\n"
  }
  assert {
    condition = [
      output.sam_parameters.HttpsProxy, output.sam_parameters.NoProxy, output.sam_parameters.CaCertificates
    ] == ["http://proxy.example.com:3128", "sts.eu-central-1.amazonaws.com,10.0.0.0/8", "MIIBAg==,MIIC"]
    error_message = "the functions get proxy and certificates, each on one line"
  }
  assert {
    condition     = toset(keys(aws_vpc_security_group_egress_rule.builder)) == toset(["80", "443", "3128"])
    error_message = "the image builder cannot reach the proxy"
  }
  assert {
    condition = [
      output.packer_variables.https_proxy, output.packer_variables.no_proxy, output.packer_variables.ca_certificates
    ] == ["http://proxy.example.com:3128", "sts.eu-central-1.amazonaws.com,10.0.0.0/8", "MIIBAg==,MIIC"]
    error_message = "images get the same"
  }
}

run "no_proxy_and_no_certificates_are_empty_settings" {
  assert {
    condition     = [for name in ["HttpsProxy", "NoProxy", "CaCertificates"] : output.sam_parameters[name]] == ["", "", ""]
    error_message = "an empty parameter means none"
  }
}

run "the_functions_run_outside_of_any_vpc_by_default" {
  assert {
    condition     = [output.sam_parameters.VpcSubnetIds, output.sam_parameters.VpcSecurityGroupIds] == ["", ""]
    error_message = "an empty parameter means no VPC"
  }
  assert {
    condition     = !strcontains(data.aws_iam_policy_document.boundary.json, "ec2:CreateNetworkInterface")
    error_message = "functions outside of a VPC need no network interface"
  }
}

run "the_functions_run_in_the_subnets_of_a_private_network" {
  variables {
    functions_subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    functions_security_group_ids = ["sg-0123456789abcdef0"]
  }
  assert {
    condition = [output.sam_parameters.VpcSubnetIds, output.sam_parameters.VpcSecurityGroupIds] == [
      "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "sg-0123456789abcdef0"
    ]
    error_message = "the functions get subnets and security groups"
  }
}

run "subnets_of_functions_without_a_security_group_are_rejected" {
  command = plan
  variables {
    functions_subnet_ids = ["subnet-0123456789abcdef0"]
  }
  expect_failures = [var.functions_security_group_ids]
}

run "the_largest_volume_reaches_the_functions_policy" {
  variables {
    largest_volume_gib = 1000
  }
  assert {
    condition     = output.sam_parameters.LargestVolumeGib == "1000"
    error_message = "the functions' policy has another limit than their boundary"
  }
}

run "a_largest_volume_that_is_no_whole_number_is_rejected" {
  command = plan
  variables {
    largest_volume_gib = 40.5
  }
  expect_failures = [var.largest_volume_gib]
}

run "a_largest_volume_that_ec2_does_not_offer_is_rejected" {
  command = plan
  variables {
    largest_volume_gib = 65537
  }
  expect_failures = [var.largest_volume_gib]
}

run "names_that_aws_refuses_later_are_rejected" {
  command = plan
  variables {
    stack = "ssm-ci"
  }
  expect_failures = [var.stack]
}

run "a_name_that_cloudformation_refuses_is_rejected" {
  command = plan
  variables {
    stack = "1st"
  }
  expect_failures = [var.stack]
}

run "names_without_a_proxy_need_a_way_out" {
  command = plan
  variables {
    no_proxy            = ["sts.eu-central-1.amazonaws.com"]
    runner_egress_ports = [3128]
  }
  expect_failures = [var.runner_egress_ports]
}

run "more_classes_than_the_policy_has_room_for_are_rejected" {
  command = plan
  variables {
    runner_classes = { for number in range(13) : "class-${number}" => {} }
  }
  expect_failures = [var.runner_classes]
}
