locals {
  # The last part of each image parameter's name, with the architecture of its image. Classes can share a parameter.
  images = { for class in values(var.runner_classes) : coalesce(class.image, class.architecture) => class.architecture... }

  # Canonical's account, which publishes Ubuntu's images.
  canonical = "099720109477"
}

# The id of the image that runners are launched from. `make build-image` writes it. Terraform only creates the parameter,
# because EC2 resolves it when a launch template is created. Until the first build it contains Ubuntu's image, which has
# no agent: a pool that launches it gets boot failures, and its circuit opens.
resource "aws_ssm_parameter" "image" {
  #checkov:skip=CKV2_AWS_34:An image id is not a secret, and EC2 resolves only unencrypted parameters
  for_each = local.images

  name           = "/${var.stack}/image/${each.key}"
  description    = "Drover: image of new runners"
  type           = "String"
  data_type      = "aws:ec2:image"
  insecure_value = data.aws_ami.ubuntu[each.value[0]].id
  tags           = local.part_of

  lifecycle {
    ignore_changes = [insecure_value, value]
  }
}

data "aws_ami" "ubuntu" {
  for_each = toset([for class in values(var.runner_classes) : class.architecture])

  owners      = [local.canonical]
  most_recent = true

  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${each.key == "arm64" ? "arm64" : "amd64"}-server-*"]
  }
}

# Launch templates for runners, one per class. The scaler may launch only from these templates, and may override none of
# their resources but the root volume, within limits (iam.tf).
resource "aws_launch_template" "runner" {
  for_each = var.runner_classes

  name        = "${var.stack}-${each.key}"
  description = "Drover: runners of class ${each.key}"
  # `drover pools apply` pins the default version. A change here affects a pool only after the next `drover pools apply`.
  update_default_version = true

  # EC2 resolves the parameter at each launch, so a new image is used as soon as `make build-image` has written it,
  # without a new version of the template. An image that fails verification is never written to the parameter.
  image_id = "resolve:ssm:${aws_ssm_parameter.image[coalesce(each.value.image, each.value.architecture)].name}"

  # A machine powers itself off after its job. `stop` would leave a stopped instance whose volume is billed.
  instance_initiated_shutdown_behavior = "terminate"

  # No user data: it could leak, and cloud-init would have to run it. No key pair, because nobody logs in. No network
  # interface: the launch request names the subnet, and EC2 rejects a request with both.
  vpc_security_group_ids = [aws_security_group.runner.id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.runner.arn
  }

  # A job can access the metadata service. Hop limit 1 blocks containers with their own network, and required tokens block
  # server-side request forgery. The credentials from the service only allow taking the boot item, which is gone by then.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  block_device_mappings {
    device_name = "/dev/sda1"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.volume_gb
      iops                  = each.value.volume_iops
      throughput            = each.value.volume_mib_s
      encrypted             = true
      kms_key_id            = var.ebs_kms_key_arn
      delete_on_termination = true
      # A new volume loads each block from S3 on its first read, which takes most of the boot time. With a rate, EC2 fills
      # the volume in advance for a fee per GB. Null disables that.
      volume_initialization_rate = each.value.initialize_at
    }
  }

  # The scaler adds the tag drover:stack at launch. It is not set here, so that the janitor does not terminate a machine
  # that somebody starts by hand from this template.
  dynamic "tag_specifications" {
    # A policy of the organisation may also require its tags on network interfaces.
    for_each = toset(length(var.tags) > 0 ? ["instance", "network-interface", "volume"] : ["instance", "volume"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.part_of, { "drover:class" = each.key })
    }
  }

  tags = merge(local.part_of, { Name = "${var.stack}-${each.key}" })
}
