locals {
  # Image parameters by their last part, and the architecture of what they hold. Two classes may share one.
  images = { for class in values(var.runner_classes) : coalesce(class.image, class.architecture) => class.architecture... }
}

# Which image runners are launched from: `make build-image` writes it, Terraform only makes sure that there is one, because
# EC2 resolves it when a template is made. Until the first build that is Ubuntu's own image, which has no agent: a pool that
# launches it sees boot failures and stops trying.
resource "aws_ssm_parameter" "image" {
  #checkov:skip=CKV2_AWS_34:An image's id is no secret, and EC2 resolves only plain parameters
  for_each = local.images

  name           = "/${var.stack}/image/${each.key}"
  description    = "Drover: the image that runners are launched from"
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

  # Canonical.
  owners      = ["099720109477"]
  most_recent = true

  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${each.key == "arm64" ? "arm64" : "amd64"}-server-*"]
  }
}

# What a runner's machine is, one template a class. The scaler may launch from these and nothing else, and may replace
# none of their resources: what stands here is what runs.
resource "aws_launch_template" "runner" {
  for_each = var.runner_classes

  name        = "${var.stack}-${each.key}"
  description = "Drover: runners of class ${each.key}"
  # `drover pools apply` pins the default version. A change here reaches a pool when it is applied again, never by itself.
  update_default_version = true

  # Resolved at each launch: a new image is in force as soon as `make build-image` has written the parameter, without a new
  # version of the template. An image that fails in verification never gets there.
  image_id = "resolve:ssm:${aws_ssm_parameter.image[coalesce(each.value.image, each.value.architecture)].name}"

  # A machine ends by powering itself off. Anything else here would leave it stopped, and its volume paid for.
  instance_initiated_shutdown_behavior = "terminate"

  # No user data: nothing to leak from it, nothing to run from it, and cloud-init has nothing to wait for. No key pair:
  # nobody logs in. No network interface: the subnet stands in the request, and EC2 refuses the two together.
  vpc_security_group_ids = [aws_security_group.runner.id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.runner.arn
  }

  # A job can read the metadata service as its own user. Hop limit 1 keeps it from containers with a network of their own,
  # tokens keep it from requests that a job was tricked into. What it hands out is a role that may do one thing, once.
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
      delete_on_termination = true
      # A volume made from a snapshot reads its blocks from S3 on first touch, which is most of a boot. EC2 fills it ahead at
      # this rate for a price per GB; null leaves it to the first reads.
      volume_initialization_rate = each.value.initialize_at
    }
  }

  # The stack's own tag comes with each launch and not from here: a machine that somebody starts from this template by hand
  # is theirs, and the janitor must not take it for an orphan.
  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.part_of, { "drover:class" = each.key })
    }
  }

  tags = merge(local.part_of, { Name = "${var.stack}-${each.key}" })
}
