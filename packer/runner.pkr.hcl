# The runners' image: what a job finds, and a machine that is a runner seconds after it was launched.

locals {
  # As Ubuntu, GitHub and AWS call the architecture.
  names = {
    x86_64 = { ubuntu = "amd64", runner = "x64", builder = "c7i.large" }
    arm64  = { ubuntu = "arm64", runner = "arm64", builder = "c7g.large" }
  }
  name = local.names[var.architecture]

  # Not drover:stack: the janitor would take the builder for an orphan, and end it in the middle of its work.
  tags = {
    "Name"                   = "${var.stack} runner image"
    "drover:image-of"        = var.stack
    "drover:runner"          = var.runner_version
    "drover:runner-released" = var.runner_released
    "drover:base"            = "ubuntu-24.04"
    "drover:processor"       = var.architecture
  }
}

source "amazon-ebs" "runner" {
  region        = var.region
  instance_type = local.name.builder

  # The newest official image, by its owner and not by an id that ages. 099720109477 is Canonical.
  source_ami_filter {
    owners      = ["099720109477"]
    most_recent = true
    filters = {
      name                = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-${local.name.ubuntu}-server-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  subnet_id            = var.subnet_id
  security_group_id    = var.security_group_id
  iam_instance_profile = var.instance_profile
  ssh_username         = "ubuntu"
  ssh_interface        = var.ssh_interface

  # A builder that was forgotten ends itself.
  shutdown_behavior = "terminate"

  # IMDSv2, for the builder and for whatever is launched from the image.
  # 1.10: what packer 1.6 does not know, and `make check-infra` leaves out where it has only that.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  # 1.10: end.

  # Encrypted from the start: packer's own encrypt_boot would copy the finished image once more.
  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_type           = "gp3"
    volume_size           = var.volume_gb
    iops                  = 3000
    throughput            = 250
    encrypted             = true
    delete_on_termination = true
  }

  ami_name        = "${var.stack}-runner-${var.architecture}-${formatdate("YYYYMMDDhhmmss", timestamp())}"
  ami_description = "Drover: a runner of stack ${var.stack}, GitHub's runner ${var.runner_version}"
  ena_support     = true

  tags            = local.tags
  snapshot_tags   = local.tags
  run_tags        = local.tags
  run_volume_tags = local.tags
}

build {
  sources = ["source.amazon-ebs.runner"]

  provisioner "file" {
    sources     = ["${path.root}/files/", "${path.root}/scripts/verify.sh"]
    destination = "/tmp/"
  }

  provisioner "file" {
    source      = var.agent
    destination = "/tmp/drover-agent"
  }

  provisioner "shell" {
    execute_command = "sudo env {{ .Vars }} bash '{{ .Path }}'"
    environment_vars = [
      "STACK=${var.stack}",
      "RUNNER_VERSION=${var.runner_version}",
      "RUNNER_SHA256=${var.runner_sha256[var.architecture]}",
      "RUNNER_ARCHITECTURE=${local.name.runner}",
      "KEEP_SSM=${var.keep_ssm}",
    ]
    scripts = [
      "${path.root}/scripts/packages.sh",
      "${path.root}/scripts/runner.sh",
      "${path.root}/scripts/agent.sh",
      "${path.root}/scripts/boot.sh",
      # Last but one: whatever fails here fails the build, and no image comes of it.
      "${path.root}/scripts/verify.sh",
      "${path.root}/scripts/clean.sh",
    ]
  }

  # Where `make build-image` reads the image's id.
  post-processor "manifest" {
    output     = "manifest.json"
    strip_path = true
  }
}
