# The runner image: the tools that jobs use, GitHub's runner and Drover's agent, configured to boot fast.

locals {
  # Names of the architecture in Ubuntu's images and GitHub's releases, and the instance type of the builder.
  names = {
    x86_64 = { ubuntu = "amd64", runner = "x64", builder = "c7i.large" }
    arm64  = { ubuntu = "arm64", runner = "arm64", builder = "c7g.large" }
  }
  name = local.names[var.architecture]

  # The metadata service and this machine are never reached through the proxy.
  no_proxy = join(",", compact(["169.254.169.254", "localhost", "127.0.0.1", var.no_proxy]))

  # Without the tag drover:stack: the janitor would terminate the builder as an orphan.
  tags = merge(var.tags, {
    "Name"                   = "${var.stack} runner image"
    "drover:image-of"        = var.stack
    "drover:runner"          = var.runner_version
    "drover:runner-released" = var.runner_released
    "drover:agent"           = var.agent_version
    "drover:base"            = "ubuntu-24.04"
    "drover:processor"       = var.architecture
  })
}

source "amazon-ebs" "runner" {
  region        = var.region
  instance_type = var.instance_type == "" ? local.name.builder : var.instance_type

  # The newest official Ubuntu image. 099720109477 is Canonical's account.
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

  # A builder that shuts down must not stay as a stopped instance.
  shutdown_behavior = "terminate"

  # Require IMDSv2 on the builder and on machines that are launched from the image.
  # 1.10 begin: Packer 1.6 does not support these settings. `make check-infra` removes them before it validates.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  # 1.10 end.

  # The volume is encrypted from the start, because Packer's encrypt_boot copies the finished image once more.
  launch_block_device_mappings {
    device_name           = "/dev/sda1"
    volume_type           = "gp3"
    volume_size           = var.volume_gb
    iops                  = 3000
    throughput            = 250
    encrypted             = true
    kms_key_id            = var.kms_key_arn
    delete_on_termination = true
  }

  ami_name        = "${var.stack}-runner-${var.architecture}-${formatdate("YYYYMMDDhhmmss", timestamp())}"
  ami_description = "Drover: runner image of stack ${var.stack}, GitHub runner ${var.runner_version}"
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
      "REGION=${var.region}",
      "RUNNER_VERSION=${var.runner_version}",
      "RUNNER_SHA256=${var.runner_sha256[var.architecture]}",
      "RUNNER_ARCHITECTURE=${local.name.runner}",
      "NODE_VERSION=${var.node_version}",
      "NODE_SHA256=${var.node_sha256[var.architecture]}",
      "KEEP_SSM=${var.keep_ssm}",
      # Read by the programs that the scripts call, and by the scripts. Empty values have no effect.
      "http_proxy=${var.https_proxy}",
      "https_proxy=${var.https_proxy}",
      "no_proxy=${local.no_proxy}",
      "CA_CERTIFICATES=${var.ca_certificates}",
    ]
    scripts = [
      "${path.root}/scripts/network.sh",
      "${path.root}/scripts/packages.sh",
      "${path.root}/scripts/tools.sh",
      "${path.root}/scripts/runner.sh",
      "${path.root}/scripts/agent.sh",
      "${path.root}/scripts/boot.sh",
      # A failed check fails the build. Only the cleanup runs later.
      "${path.root}/scripts/verify.sh",
      "${path.root}/scripts/clean.sh",
    ]
  }

  # `make build-image` reads the image's id from this file.
  post-processor "manifest" {
    output     = "manifest.json"
    strip_path = true
  }
}
