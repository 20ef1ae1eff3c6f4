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
  image_id = "resolve:ssm:/${var.stack}/image/${coalesce(each.value.image, each.value.architecture)}"

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
