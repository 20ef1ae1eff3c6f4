# `make build-image`: one machine, one image, one parameter. The build tags what it creates with drover:image-of, and this
# role may change or delete only resources with that tag. The tag drover:stack is not used, because the janitor would
# terminate the machine as an orphan.
data "aws_iam_policy_document" "image" {
  #checkov:skip=CKV_AWS_356:Describe calls of EC2 do not support resource-level permissions
  source_policy_documents = [data.aws_iam_policy_document.read_state.json]

  statement {
    sid = "Look"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeInstanceStatus", "ec2:DescribeInstanceTypeOfferings",
      "ec2:DescribeInstanceTypes", "ec2:DescribeRegions", "ec2:DescribeSecurityGroups", "ec2:DescribeSnapshots",
      "ec2:DescribeSubnets", "ec2:DescribeTags", "ec2:DescribeVolumes", "ec2:DescribeVpcs",
    ]
    resources = ["*"]
  }

  # Packer starts from Canonical's image. EC2 may also show these images as Amazon's, because Canonical is a verified
  # provider. Other images and snapshots could contain what another account or another team put there.
  statement {
    sid     = "LaunchUbuntu"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "ec2:Owner"
      values   = [local.canonical, "amazon"]
    }
  }

  statement {
    sid     = "LaunchInTheBuildersPlace"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:key-pair/packer_*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:network-interface/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:security-group/${aws_security_group.builder.id}",
      "arn:${local.partition}:ec2:${local.arn_prefix}:subnet/${local.subnet_ids[0]}",
    ]
  }

  statement {
    sid     = "LaunchTagged"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:instance/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:volume/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:image-of"
      values   = [var.stack]
    }
  }

  # Packer creates a key pair for each build and deletes it afterwards.
  statement {
    sid       = "OwnKeyPair"
    actions   = ["ec2:CreateKeyPair", "ec2:DeleteKeyPair"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:key-pair/packer_*"]
  }

  # IAM checks this call for the instance, the new image and each new snapshot.
  statement {
    sid       = "CreateAnImageOfTheBuilder"
    actions   = ["ec2:CreateImage"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:image-of"
      values   = [var.stack]
    }
  }

  statement {
    sid     = "CreateATaggedImage"
    actions = ["ec2:CreateImage"]
    resources = [
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:image-of"
      values   = [var.stack]
    }
  }

  # Packer tags everything that it creates in the call that creates it. No other resource can get the tag that permits
  # its deletion.
  statement {
    sid     = "TagWhatIsCreated"
    actions = ["ec2:CreateTags"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:instance/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:key-pair/packer_*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:network-interface/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:volume/*",
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateImage", "CreateKeyPair", "RunInstances"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:image-of"
      values   = [var.stack]
    }
  }

  # Packer repeats the tags of image and snapshots once they are available.
  statement {
    sid     = "TagAgain"
    actions = ["ec2:CreateTags"]
    resources = [
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:image-of"
      values   = [var.stack]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:image-of"
      values   = [var.stack]
    }
  }

  statement {
    sid = "OwnThings"
    actions = [
      "ec2:DeleteSnapshot", "ec2:DeleteVolume", "ec2:DeregisterImage", "ec2:DescribeImageAttribute",
      "ec2:ModifyImageAttribute", "ec2:ModifyInstanceAttribute", "ec2:StopInstances", "ec2:TerminateInstances",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:image-of"
      values   = [var.stack]
    }
  }

  # EC2 uses the key of the builder's volume and of the image's snapshot on behalf of the caller.
  dynamic "statement" {
    for_each = local.ebs_kms_key

    content {
      sid       = "UseTheVolumesKey"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["ec2.${local.region}.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.ebs_kms_key

    content {
      sid       = "LendTheVolumesKey"
      actions   = ["kms:CreateGrant"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["ec2.${local.region}.amazonaws.com"]
      }
      condition {
        test     = "Bool"
        variable = "kms:GrantIsForAWSResource"
        values   = ["true"]
      }
    }
  }

  statement {
    sid       = "PassTheBuildersRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.builder.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }

  # Packer checks that the instance profile exists.
  statement {
    sid       = "LookAtTheBuildersProfile"
    actions   = ["iam:GetInstanceProfile"]
    resources = [aws_iam_instance_profile.builder.arn]
  }

  # SSH through Session Manager, only to builders of this stack.
  statement {
    sid       = "OpenATunnel"
    actions   = ["ssm:StartSession"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:image-of"
      values   = [var.stack]
    }
  }

  statement {
    sid     = "ThroughThisDocument"
    actions = ["ssm:StartSession"]
    resources = [
      "arn:${local.partition}:ssm:${local.region}::document/AWS-StartPortForwardingSession",
    ]
  }

  statement {
    sid       = "CloseIt"
    actions   = ["ssm:TerminateSession"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:session/*"]
  }

  statement {
    sid       = "NameTheImage"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:PutParameter"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }
}
