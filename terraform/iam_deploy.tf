# `make deploy`, and `drover` for operators: what this role calls itself. iam_cloudformation.tf has what CloudFormation calls
# on its behalf.
data "aws_iam_policy_document" "deploy" {
  #checkov:skip=CKV_AWS_356:Describe calls and launches without resource-level permissions
  # `drover doctor` calls RunInstances with DryRun, and no IAM condition can require DryRun. This grants nothing new: a
  # role that deploys the scaler's code already decides what the scaler launches from these templates.
  source_policy_documents = [data.aws_iam_policy_document.read_state.json, data.aws_iam_policy_document.launch.json]

  statement {
    sid = "OwnStack"
    actions = [
      "cloudformation:ContinueUpdateRollback", "cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet",
      "cloudformation:DeleteStack",
      "cloudformation:DescribeChangeSet", "cloudformation:DescribeStackEvents", "cloudformation:DescribeStackResources",
      "cloudformation:DescribeStacks", "cloudformation:ExecuteChangeSet", "cloudformation:GetTemplate",
      "cloudformation:GetTemplateSummary", "cloudformation:ListStackResources",
    ]
    resources = [
      "arn:${local.partition}:cloudformation:${local.arn_prefix}:stack/${var.stack}/*",
      "arn:${local.partition}:cloudformation:${local.region}:aws:transform/Serverless-2016-10-31",
    ]
  }

  # These calls name no stack, because it does not exist yet.
  statement {
    sid       = "LookForStacks"
    actions   = ["cloudformation:GetTemplateSummary", "cloudformation:ValidateTemplate"]
    resources = ["*"]
  }

  # The bucket of this module for the zip files. SAM's own bucket is shared by all stacks of the account.
  statement {
    sid       = "Zips"
    actions   = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    resources = [aws_s3_bucket.artifacts.arn, "${aws_s3_bucket.artifacts.arn}/*"]
  }

  # `make smoke` runs the janitor. A changed description makes a function read a new key (docs/changing.md).
  statement {
    sid       = "OperateTheFunctions"
    actions   = ["lambda:InvokeFunction", "lambda:UpdateFunctionConfiguration"]
    resources = [for name in local.functions : "arn:${local.partition}:lambda:${local.arn_prefix}:function:${var.stack}-${name}"]
  }

  # `drover` uses the same calls as the functions to read and write the table. `make deploy` looks for a table that
  # outlived its stack.
  statement {
    sid = "OperateTheTable"
    actions = [
      "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeTable",
      "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query",
    ]
    resources = ["arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}"]
  }

  # `drover dead-letters` lists messages, sends them to the queue again and deletes them.
  statement {
    sid = "OperateTheDeadLetters"
    actions = [
      "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl",
      "sqs:ReceiveMessage",
    ]
    resources = ["arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}-dead-letters"]
  }

  statement {
    sid       = "OperateTheQueue"
    actions   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    resources = ["arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}"]
  }

  statement {
    sid = "OperateThePools"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes", "ec2:DescribeInstances",
      "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates", "ec2:DescribeSpotPriceHistory",
      "ec2:DescribeSubnets", "ec2:GetEbsDefaultKmsKeyId",
    ]
    resources = ["*"]
  }

  # `drover doctor` compares the quotas with what the pools can need.
  statement {
    sid       = "ReadQuotas"
    actions   = ["servicequotas:GetServiceQuota"]
    resources = ["*"]
  }

  # `drover logs`. The console has the output of the kernel and the agent, which contains no secrets.
  statement {
    sid       = "ReadOwnConsoles"
    actions   = ["ec2:GetConsoleOutput"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:stack"
      values   = [var.stack]
    }
  }

  # `drover hold` and `drover release`: only the tag drover:hold, only on machines of the stack.
  statement {
    sid       = "HoldOwnMachines"
    actions   = ["ec2:CreateTags", "ec2:DeleteTags"]
    resources = ["arn:${local.partition}:ec2:${local.arn_prefix}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/drover:stack"
      values   = [var.stack]
    }
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["drover:hold"]
    }
    # ForAllValues is also true without values, and DeleteTags without keys deletes all tags.
    condition {
      test     = "Null"
      variable = "aws:TagKeys"
      values   = ["false"]
    }
  }

  statement {
    sid       = "FillTheSecrets"
    actions   = ["secretsmanager:DescribeSecret", "secretsmanager:PutSecretValue"]
    resources = ["arn:${local.partition}:secretsmanager:${local.arn_prefix}:secret:${var.stack}/*"]
  }

  # `drover` calls GitHub as the app. Only ingest needs to read the webhook secret.
  statement {
    sid       = "AskGitHub"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.this["app"].arn]
  }
}
