# Roles of the machines, and of the people and workflows that change Drover. The functions' roles are in template.yaml,
# next to the functions. None of the policies has been verified in a real AWS account yet: run `make smoke` after the
# first deployment.

# ------------------------------------------------------------------------------------------------ runner machines

# Untrusted code runs with this role. Its only permission is to delete the machine's own boot item. The deletion returns
# the item, so the machine can read it exactly once.
resource "aws_iam_role" "runner" {
  name               = "${var.stack}-runner"
  description        = "Drover: runner machines"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_ec2.json
  tags               = local.part_of
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
    actions   = ["dynamodb:DeleteItem"]
    resources = ["arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${var.stack}-boot"]

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
}

resource "aws_iam_role_policy" "runner" {
  name   = "boot-item"
  role   = aws_iam_role.runner.name
  policy = data.aws_iam_policy_document.runner.json
}

resource "aws_iam_role_policy_attachment" "runner_ssm" {
  count = var.runner_ssm ? 1 : 0

  role       = aws_iam_role.runner.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "runner" {
  name = "${var.stack}-runner"
  role = aws_iam_role.runner.name
  tags = local.part_of
}

# ------------------------------------------------------------------------------------------------ the image builder

# Only the Session Manager agent uses this role. Session Manager needs no inbound access to the builder.
resource "aws_iam_role" "builder" {
  name               = "${var.stack}-builder"
  description        = "Drover: builder of the runner image"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_ec2.json
  tags               = local.part_of
}

resource "aws_iam_role_policy_attachment" "builder_ssm" {
  role       = aws_iam_role.builder.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "builder" {
  name = "${var.stack}-builder"
  role = aws_iam_role.builder.name
  tags = local.part_of
}

# ------------------------------------------------------------------------------------------------ the functions' boundary

# The role `deploy` creates the functions' roles. Without a boundary, a role that may create roles can create an
# administrator. With it, no role that `deploy` creates can exceed these permissions, whatever the role's own policy says.
# The boundary is deliberately wider than the functions' policies, which tests compare with every call in the code.
data "aws_iam_policy_document" "boundary" {
  statement {
    sid = "OwnThings"
    actions = [
      "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:GetItem",
      "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
      "secretsmanager:GetSecretValue",
      "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage",
      "ssm:GetParameters",
      "logs:CreateLogStream", "logs:PutLogEvents",
    ]
    resources = [
      "arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${var.stack}",
      "arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${var.stack}-boot",
      "arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${var.stack}/*",
      "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.stack}",
      "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.stack}-dead-letters",
      "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/${var.stack}/image/*",
      "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/lambda/${var.stack}-*",
    ]
  }

  statement {
    sid       = "Launch"
    actions   = ["ec2:RunInstances"]
    resources = ["*"]

    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = [for template in aws_launch_template.runner : template.arn]
    }
  }

  statement {
    sid       = "TagWhatIsLaunched"
    actions   = ["ec2:CreateTags"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }

  statement {
    sid       = "OwnMachines"
    actions   = ["ec2:GetConsoleOutput", "ec2:TerminateInstances"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:stack"
      values   = [var.stack]
    }
  }

  statement {
    sid       = "PassTheMachinesRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.runner.arn]
  }

  # These actions do not support resource-level permissions.
  statement {
    sid = "LookAndTrace"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeLaunchTemplateVersions", "xray:PutTelemetryRecords",
      "xray:PutTraceSegments",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_policy" "boundary" {
  name = "${var.stack}-boundary"
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

  name               = "${var.stack}-${each.key}"
  description        = "Drover: ${each.key}, for people and workflows"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_people[each.key].json
  tags               = local.part_of
}

resource "aws_iam_role_policy" "people" {
  #checkov:skip=CKV_AWS_287:iam_people.tf explains the policies
  for_each = local.may_be_assumed ? local.people : {}

  name   = each.key
  role   = aws_iam_role.people[each.key].name
  policy = each.value.policy
}
