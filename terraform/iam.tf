# Roles of the machines, and of the people and workflows that change Drover. The functions' roles are in template.yaml,
# next to the functions. None of the policies has been verified in a real AWS account yet: run `make smoke` after the
# first deployment.

# ------------------------------------------------------------------------------------------------ runner machines

# Untrusted code runs with this role. It may read and delete the machine's own boot item, which is gone before a job begins, and
# write the machine's own boot report. It may read nothing else.
resource "aws_iam_role" "runner" {
  name                 = "${var.stack}-runner"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  description          = "Drover: runner machines"
  assume_role_policy   = data.aws_iam_policy_document.assumed_by_ec2.json
  tags                 = local.part_of
}

data "aws_iam_policy_document" "assumed_by_ec2" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "runner" {
  statement {
    sid       = "TakeItsOwnBootItem"
    actions   = ["dynamodb:GetItem", "dynamodb:DeleteItem"]
    resources = ["arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-boot"]

    # The `aws:userid` of a machine consists of its role's unique id and its instance id, and is its key in the boot
    # table. LeadingKeys may have several values, for example in a transaction. Each must be the machine's own key.
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = ["$${aws:userid}"]
    }
    # ForAllValues is also true if there are no values, so a request without a key must be denied separately.
    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # Write-only, and only these attributes. A job can forge the report of its own machine (docs/security.md).
  statement {
    sid       = "ReportItsOwnBoot"
    actions   = ["dynamodb:UpdateItem"]
    resources = ["arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-reports"]

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = ["$${aws:userid}"]
    }
    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:Attributes"
      values   = ["pk", "reported_at", "uptime_seconds", "prepared_at", "job_usage", "expires_at"]
    }
    condition {
      test     = "Null"
      variable = "dynamodb:Attributes"
      values   = ["false"]
    }
    # The other values would return attributes that the request does not name.
    condition {
      test     = "StringEqualsIfExists"
      variable = "dynamodb:ReturnValues"
      values   = ["NONE", "UPDATED_OLD", "UPDATED_NEW"]
    }
  }
}

resource "aws_iam_role_policy" "runner" {
  name   = "boot-item"
  role   = aws_iam_role.runner.name
  policy = data.aws_iam_policy_document.runner.json
}

# What the Session Manager agent of a machine needs to offer a shell. AWS's managed policy for it can also read every SSM
# parameter of the account, and receive commands.
data "aws_iam_policy_document" "session" {
  #checkov:skip=CKV_AWS_356:The actions of the message gateway do not support resource-level permissions
  #checkov:skip=CKV_AWS_111:The actions of the message gateway do not support resource-level permissions
  statement {
    sid = "OfferSessions"
    actions = [
      "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "runner_session" {
  count = var.runner_ssm ? 1 : 0

  name   = "session"
  role   = aws_iam_role.runner.name
  policy = data.aws_iam_policy_document.session.json
}

resource "aws_iam_instance_profile" "runner" {
  name = "${var.stack}-runner"
  path = var.role_path
  role = aws_iam_role.runner.name
  tags = local.part_of
}

# ------------------------------------------------------------------------------------------------ the image builder

# Only the Session Manager agent uses this role. Session Manager needs no inbound access to the builder.
resource "aws_iam_role" "builder" {
  name                 = "${var.stack}-builder"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  description          = "Drover: builder of the runner image"
  assume_role_policy   = data.aws_iam_policy_document.assumed_by_ec2.json
  tags                 = local.part_of
}

resource "aws_iam_role_policy" "builder_session" {
  name   = "session"
  role   = aws_iam_role.builder.name
  policy = data.aws_iam_policy_document.session.json
}

resource "aws_iam_instance_profile" "builder" {
  name = "${var.stack}-builder"
  path = var.role_path
  role = aws_iam_role.builder.name
  tags = local.part_of
}

# ------------------------------------------------------------------------------------------------ launches of runners

# Launches from the stack's templates, into the stack's subnets, and with the stack's tag, so that the janitor sees every
# machine. The request names the subnet, because a launch template cannot have several, so the subnet's tag is required
# instead of the template's resource. It sets the root volume of a job that asked for a disk, so encryption and a largest
# size are required instead. Only the statement for instances names the templates: IAM checks it for every launch, and the
# whole policy is limited to 6,144 characters. The boundary and the role `deploy` use this document. The functions' own
# policy in template.yaml has the same conditions.
data "aws_iam_policy_document" "launch" {
  statement {
    sid     = "LaunchTaggedMachines"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:instance/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:volume/*",
    ]

    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = local.launch_template_arns
    }
    condition {
      test     = "Bool"
      variable = "ec2:IsLaunchTemplateResource"
      values   = ["true"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:stack"
      values   = [var.stack]
    }
  }

  # A root volume of the size that a job asked for is not the template's, so it has limits of its own.
  statement {
    sid       = "LaunchAVolumeOfAnotherSize"
    actions   = ["ec2:RunInstances"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:volume/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:stack"
      values   = [var.stack]
    }
    condition {
      test     = "NumericLessThanEquals"
      variable = "ec2:VolumeSize"
      values   = [var.largest_volume_gib]
    }
    condition {
      test     = "Bool"
      variable = "ec2:Encrypted"
      values   = ["true"]
    }
  }

  statement {
    sid     = "LaunchFromTheTemplate"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:launch-template/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:security-group/*",
      "arn:${local.partition}:ec2:${local.region}::image/*",
    ]

    condition {
      test     = "Bool"
      variable = "ec2:IsLaunchTemplateResource"
      values   = ["true"]
    }
  }

  statement {
    sid       = "LaunchIntoTaggedSubnets"
    actions   = ["ec2:RunInstances"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:subnet/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:stack"
      values   = [var.stack]
    }
  }

  # EC2 creates the interface in the subnet of the request.
  statement {
    sid       = "LaunchWithAnInterface"
    actions   = ["ec2:RunInstances"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:network-interface/*"]

  }

  # RunInstances tags what it launches on behalf of the caller.
  statement {
    sid     = "TagWhatIsLaunched"
    actions = ["ec2:CreateTags"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:instance/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:volume/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:stack"
      values   = [var.stack]
    }
  }

  # Launch templates tag interfaces if the organisation has tags of its own.
  statement {
    sid       = "TagTheInterface"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:network-interface/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/drover:part-of"
      values   = [var.stack]
    }
  }

  # EC2 uses the key of encrypted volumes on behalf of the caller.
  dynamic "statement" {
    for_each = local.ebs_kms_key

    content {
      sid       = "UseTheVolumesKey"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"]
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

  # RunInstances resolves the template's image and passes its role on behalf of the caller.
  statement {
    sid       = "ResolveTheImage"
    actions   = ["ssm:GetParameters"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }

  statement {
    sid       = "PassTheMachinesRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.runner.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}

locals {
  # A list, so that the policies have no statement for the key if there is none.
  ebs_kms_key          = var.ebs_kms_key_arn == null ? [] : [var.ebs_kms_key_arn]
  functions_vpc        = length(var.functions_subnet_ids) == 0 ? [] : [1]
  launch_template_arns = [for template in aws_launch_template.runner : template.arn]
}

# ------------------------------------------------------------------------------------------------ the functions' boundary

# The role `deploy` creates the functions' roles. Without a boundary, a role that may create roles can create an
# administrator. With it, no role that `deploy` creates can exceed these permissions, whatever the role's own policy says.
# The boundary is slightly wider than the functions' policies, which tests compare with every call in the code.
data "aws_iam_policy_document" "boundary" {
  source_policy_documents = [data.aws_iam_policy_document.launch.json]

  statement {
    sid = "OwnThings"
    actions = [
      "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:GetItem",
      "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
      "secretsmanager:GetSecretValue",
      "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage",
      "logs:CreateLogStream", "logs:PutLogEvents",
    ]
    resources = concat(local.function_logs, [
      "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}",
      "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-boot",
      "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-reports",
      "arn:${local.partition}:secretsmanager:${local.arn_prefix}:secret:${var.stack}/*",
      "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}",
      "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}-dead-letters",
    ])
  }

  statement {
    sid       = "OwnMachines"
    actions   = ["ec2:GetConsoleOutput", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:stack"
      values   = [var.stack]
    }
  }

  # These actions do not support resource-level permissions.
  statement {
    sid = "LookAndTrace"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes", "ec2:DescribeInstances",
      "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets",
      "xray:PutTelemetryRecords", "xray:PutTraceSegments",
    ]
    resources = ["*"]
  }

  # Lambda manages the network interfaces of a function in a VPC with the function's role. Calls of the function's own
  # code have the key of the condition.
  dynamic "statement" {
    for_each = local.functions_vpc

    content {
      sid = "JoinTheVpc"
      actions = [
        "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
      ]
      resources = ["*"]

      condition {
        test     = "Null"
        variable = "lambda:SourceFunctionArn"
        values   = ["true"]
      }
    }
  }
}

resource "aws_iam_policy" "boundary" {
  name = "${var.stack}-boundary"
  path = var.role_path
  # A new description would replace the policy, which the functions' roles still use.
  description = "Drover: the most that a role of its functions can do"
  policy      = data.aws_iam_policy_document.boundary.json
  tags        = local.part_of
}

# ------------------------------------------------------------------------------------------------ people and workflows

# Roles instead of users, so that nobody has a long-lived key. Each role has the permissions that one make target needs. A
# workflow can assume a role only from the GitHub environment with the name of the role, whose reviewers approve the run.
# `plan` is for pull requests and can only read, because the author of a pull request decides what its workflow runs.
#
# Warning: `infrastructure` can write roles, and therefore can extend its own permissions. Protect its environment.
locals {
  may_be_assumed = length(var.trusted_principals) > 0 || var.github_repository != null

  people = {
    plan           = { policy = data.aws_iam_policy_document.plan.json, subject = "pull_request" }
    infrastructure = { policy = data.aws_iam_policy_document.infrastructure.json, subject = "environment:infrastructure" }
    image          = { policy = data.aws_iam_policy_document.image.json, subject = "environment:image" }
    deploy         = { policy = data.aws_iam_policy_document.deploy.json, subject = "environment:deploy" }
  }

  # The repository as it appears in the subject of a token. GitHub adds the ids for repositories that were created, renamed
  # or transferred since July 2026. Older repositories keep the form without ids, so both are accepted. A repository that
  # takes over a name later has another id, and no token without ids.
  repository_subjects = var.github_repository == null ? [] : concat(
    ["repo:${var.github_repository}"],
    var.github_repository_id == null ? [] : [format("repo:%s@%s/%s@%s",
      split("/", var.github_repository)[0], var.github_owner_id, split("/", var.github_repository)[1], var.github_repository_id,
    )],
  )

  oidc_provider_arn = var.github_oidc_provider_arn != null ? var.github_oidc_provider_arn : one(aws_iam_openid_connect_provider.github[*].arn)
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github_repository != null && var.github_oidc_provider_arn == null ? 1 : 0

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
  tags           = local.part_of
}

data "aws_iam_policy_document" "assumed_by_people" {
  for_each = local.may_be_assumed ? local.people : {}

  dynamic "statement" {
    for_each = length(var.trusted_principals) > 0 ? [1] : []

    content {
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = var.trusted_principals
      }
    }
  }

  dynamic "statement" {
    for_each = var.github_repository != null ? [1] : []

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = [local.oidc_provider_arn]
      }
      condition {
        test     = "StringEquals"
        variable = "token.actions.githubusercontent.com:aud"
        values   = ["sts.amazonaws.com"]
      }
      condition {
        test     = "StringEquals"
        variable = "token.actions.githubusercontent.com:sub"
        values   = [for repository in local.repository_subjects : "${repository}:${each.value.subject}"]
      }
    }
  }
}

resource "aws_iam_role" "people" {
  for_each = local.may_be_assumed ? local.people : {}

  name                 = "${var.stack}-${each.key}"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  description          = "Drover: ${each.key}, for people and workflows"
  assume_role_policy   = data.aws_iam_policy_document.assumed_by_people[each.key].json
  tags                 = local.part_of
}

resource "aws_iam_role_policy" "people" {
  #checkov:skip=CKV_AWS_287:The files iam_*.tf explain the policies
  for_each = local.may_be_assumed ? local.people : {}

  name   = each.key
  role   = aws_iam_role.people[each.key].name
  policy = each.value.policy
}
