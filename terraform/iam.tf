# Roles: of the machines, and of the people and workflows that change Drover. The functions' roles are in template.yaml,
# next to what they call. All of it is unverified in a real account until `make smoke` ran there.

# ------------------------------------------------------------------------------------------------ the runner's machine

# Strangers' code runs with this role. It may delete one item, its own, which returns it: one read, once.
resource "aws_iam_role" "runner" {
  name               = "${var.stack}-runner"
  description        = "Drover: a runner's machine"
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

    # `aws:userid` of a machine is its role's unique id and its instance id: the boot table's key. LeadingKeys may have
    # several values, in a transaction say, and every one must be its own.
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = ["$${aws:userid}"]
    }
    # "All of none" is true: a request that names no key must not pass.
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

# ------------------------------------------------------------------------------------------------ the image builder's machine

# Only Session Manager's agent uses it, so that nothing has to come in.
resource "aws_iam_role" "builder" {
  name               = "${var.stack}-builder"
  description        = "Drover: the machine that becomes the runners' image"
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

# The deployer makes the functions' roles. Without a boundary, whoever may make a role may make an administrator; with it,
# no role that the deployer makes can do more than this, whatever its own policy says. It is wider than the functions'
# policies on purpose: those are what is checked call by call, this is the fence around them.
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

  # These take no resource.
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
  name        = "${var.stack}-boundary"
  description = "Drover: the most that a role of its functions can do"
  policy      = data.aws_iam_policy_document.boundary.json
  tags        = local.part_of
}

# ------------------------------------------------------------------------------------------------ people and workflows

# Roles instead of users: nobody holds a key that lasts. Each does what one make target needs. A workflow assumes a role
# only from the GitHub environment of the role's name, whose reviewers are then the gate; `plan` is for pull requests and
# only reads, because whoever opens one writes what it runs.
#
# One honest word: `infrastructure` writes roles, so it can make itself more than it is. It is the one to guard.
locals {
  may_be_assumed = length(var.trusted_principals) > 0 || var.github_repository != null

  people = {
    plan           = { policy = data.aws_iam_policy_document.plan.json, subject = "pull_request" }
    infrastructure = { policy = data.aws_iam_policy_document.infrastructure.json, subject = "environment:infrastructure" }
    image          = { policy = data.aws_iam_policy_document.image.json, subject = "environment:image" }
    deploy         = { policy = data.aws_iam_policy_document.deploy.json, subject = "environment:deploy" }
  }

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
        values   = ["repo:${var.github_repository}:${each.value.subject}"]
      }
    }
  }
}

resource "aws_iam_role" "people" {
  for_each = local.may_be_assumed ? local.people : {}

  name               = "${var.stack}-${each.key}"
  description        = "Drover: make ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_people[each.key].json
  tags               = local.part_of
}

resource "aws_iam_role_policy" "people" {
  #checkov:skip=CKV_AWS_287:The policies are argued in iam_people.tf
  for_each = local.may_be_assumed ? local.people : {}

  name   = each.key
  role   = aws_iam_role.people[each.key].name
  policy = each.value.policy
}
