# What CloudFormation calls on behalf of the role `deploy`: nothing here can be called otherwise. Managed policies, because
# all inline policies of a role together are limited to 10,240 characters, and two, because each is limited to 6,144.
data "aws_iam_policy_document" "cloudformation" {
  #checkov:skip=CKV_AWS_356:Calls without resource-level permissions are allowed only through CloudFormation
  #checkov:skip=CKV_AWS_109:Roles are restricted by name and boundary, and to calls through CloudFormation
  #checkov:skip=CKV_AWS_111:Only through CloudFormation, and restricted by name where the service supports it
  statement {
    sid = "OwnThings"
    actions = [
      "cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards", "cloudwatch:DescribeAlarms", "cloudwatch:GetDashboard",
      "cloudwatch:PutDashboard", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource", "cloudwatch:UntagResource",
      "dynamodb:CreateTable", "dynamodb:DeleteTable", "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable",
      "dynamodb:DescribeTimeToLive", "dynamodb:ListTagsOfResource", "dynamodb:TagResource", "dynamodb:UntagResource",
      "dynamodb:UpdateContinuousBackups", "dynamodb:UpdateTable", "dynamodb:UpdateTimeToLive",
      "events:DeleteRule", "events:DescribeRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets",
      "events:ListTargetsByRule", "events:TagResource", "events:UntagResource",
      "lambda:AddPermission", "lambda:CreateFunction", "lambda:CreateFunctionUrlConfig", "lambda:DeleteFunction",
      "lambda:DeleteFunctionConcurrency", "lambda:DeleteFunctionEventInvokeConfig", "lambda:DeleteFunctionUrlConfig",
      "lambda:GetFunction", "lambda:GetFunctionCodeSigningConfig", "lambda:GetFunctionConfiguration",
      "lambda:GetFunctionEventInvokeConfig", "lambda:GetFunctionRecursionConfig", "lambda:GetFunctionUrlConfig",
      "lambda:GetPolicy", "lambda:GetRuntimeManagementConfig", "lambda:ListTags", "lambda:PutFunctionConcurrency",
      "lambda:PutFunctionEventInvokeConfig", "lambda:PutFunctionRecursionConfig", "lambda:RemovePermission",
      "lambda:TagResource", "lambda:UntagResource", "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration",
      "lambda:UpdateFunctionEventInvokeConfig", "lambda:UpdateFunctionUrlConfig",
      "logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:ListTagsForResource", "logs:PutRetentionPolicy",
      "logs:TagResource", "logs:UntagResource",
      "sns:CreateTopic", "sns:DeleteTopic", "sns:GetSubscriptionAttributes", "sns:GetTopicAttributes",
      "sns:ListSubscriptionsByTopic", "sns:ListTagsForResource", "sns:SetTopicAttributes", "sns:Subscribe",
      "sns:TagResource", "sns:Unsubscribe", "sns:UntagResource",
      "sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags",
      "sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue",
    ]
    resources = concat(
      local.function_logs,
      [for name in local.functions : "arn:${local.partition}:lambda:${local.arn_prefix}:function:${var.stack}-${name}"],
      [for name in ["instance-state-changes", "janitor", "spot-interruptions"] :
      "arn:${local.partition}:events:${local.arn_prefix}:rule/${var.stack}-${name}"],
      [
        "arn:${local.partition}:cloudwatch:${local.arn_prefix}:alarm:${var.stack}: *",
        "arn:${local.partition}:cloudwatch::${local.account}:dashboard/${var.stack}",
        "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}",
        "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-boot",
        "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-reports",
        "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/apigateway/${var.stack}-ingest",
        "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/apigateway/${var.stack}-ingest:*",
        "arn:${local.partition}:sns:${local.arn_prefix}:${var.stack}-alarms",
        "arn:${local.partition}:sns:${local.arn_prefix}:${var.stack}-alarms:*",
        "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}",
        "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}-dead-letters",
      ],
    )

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  # SAM tags the event source mapping, whose id a policy cannot name in advance.
  statement {
    sid       = "TagTheEventSource"
    actions   = ["lambda:ListTags", "lambda:TagResource", "lambda:UntagResource"]
    resources = ["arn:${local.partition}:lambda:${local.arn_prefix}:event-source-mapping:*"]

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  # The id of the event source mapping is generated, but its function is known.
  statement {
    sid = "ConnectTheQueue"
    actions = [
      "lambda:CreateEventSourceMapping", "lambda:DeleteEventSourceMapping", "lambda:GetEventSourceMapping",
      "lambda:UpdateEventSourceMapping",
    ]
    resources = ["*"]

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "lambda:FunctionArn"
      values   = ["arn:${local.partition}:lambda:${local.arn_prefix}:function:${var.stack}-scaler"]
    }
  }

  statement {
    sid       = "LookForLogGroups"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["*"]

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  # Lambda looks up the subnets and security groups of a function. CloudFormation waits until the interfaces of a deleted
  # function are gone.
  dynamic "statement" {
    for_each = local.functions_vpc

    content {
      sid = "LookAtTheVpc"
      actions = [
        "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
      ]
      resources = ["*"]

      condition {
        test     = "ForAnyValue:StringEquals"
        variable = "aws:CalledVia"
        values   = ["cloudformation.amazonaws.com"]
      }
    }
  }

  # The parameter IngestEndpoint=http-api. An HTTP API has a generated id, and its routes, integrations and stages have no
  # tags that a condition could test. So a role with this statement can change other HTTP APIs of the region by a
  # template, and only a stack that needs it has it.
  dynamic "statement" {
    for_each = var.http_api ? [1] : []

    content {
      sid = "AnHttpApi"
      # CloudFormation tags the stage.
      actions = [
        "apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST", "apigateway:PUT",
        "apigateway:TagResource", "apigateway:UntagResource",
      ]
      resources = [
        for path in ["apis", "apis/*", "tags/*"] : "arn:${local.partition}:apigateway:${local.region}::/${path}"
      ]

      condition {
        test     = "ForAnyValue:StringEquals"
        variable = "aws:CalledVia"
        values   = ["cloudformation.amazonaws.com"]
      }
    }
  }

  # The API's access log. The actions for log delivery do not support resource-level permissions.
  dynamic "statement" {
    for_each = var.http_api ? [1] : []

    content {
      sid = "ItsAccessLog"
      actions = [
        "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeResourcePolicies", "logs:GetLogDelivery",
        "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery",
      ]
      resources = ["*"]

      condition {
        test     = "ForAnyValue:StringEquals"
        variable = "aws:CalledVia"
        values   = ["cloudformation.amazonaws.com"]
      }
    }
  }
}

data "aws_iam_policy_document" "cloudformation_roles" {
  #checkov:skip=CKV_AWS_109:Roles are restricted by name and boundary, and to calls through CloudFormation
  #checkov:skip=CKV_AWS_356:Only for readings through CloudFormation
  # What CloudFormation reads of its resources, besides the calls for each of them.
  statement {
    sid = "LookAtResources"
    actions = [
      "cloudwatch:ListTagsForResource", "dynamodb:DescribeContributorInsights",
      "dynamodb:DescribeKinesisStreamingDestination", "dynamodb:GetResourcePolicy", "events:ListTagsForResource",
      "logs:DescribeIndexPolicies", "logs:GetDataProtectionPolicy",
    ]
    resources = ["*"]

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  # Only the functions' roles, and only with the boundary, so that this role cannot create an administrator.
  statement {
    sid       = "MakeRolesUnderTheBoundary"
    actions   = ["iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePolicy"]
    resources = local.function_roles

    condition {
      test     = "ArnEquals"
      variable = "iam:PermissionsBoundary"
      values   = [local.functions_boundary]
    }
    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  statement {
    sid = "KeepRoles"
    actions = [
      "iam:DeleteRole", "iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies",
      "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy",
    ]
    resources = local.function_roles

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  statement {
    sid = "KeepTheirPolicy"
    actions = [
      "iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:GetPolicy",
      "iam:GetPolicyVersion", "iam:ListEntitiesForPolicy", "iam:ListPolicyVersions",
    ]
    resources = ["arn:${local.partition}:iam::${local.account}:policy${var.role_path}${var.stack}-control-plane"]

    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }

  statement {
    sid       = "GiveThemToFunctions"
    actions   = ["iam:PassRole"]
    resources = local.function_roles

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["lambda.amazonaws.com"]
    }
    condition {
      test     = "ForAnyValue:StringEquals"
      variable = "aws:CalledVia"
      values   = ["cloudformation.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "cloudformation" {
  for_each = local.may_be_assumed ? {
    cloudformation       = data.aws_iam_policy_document.cloudformation.json
    cloudformation-roles = data.aws_iam_policy_document.cloudformation_roles.json
  } : {}

  name        = "${var.stack}-${each.key}"
  path        = var.role_path
  description = "Drover: what CloudFormation may do for the role deploy"
  policy      = each.value
  tags        = local.part_of
}

resource "aws_iam_role_policy_attachment" "cloudformation" {
  for_each = aws_iam_policy.cloudformation

  role       = aws_iam_role.people["deploy"].name
  policy_arn = each.value.arn
}

locals {
  functions_boundary = coalesce(var.permissions_boundary, aws_iam_policy.boundary.arn)
  function_roles     = [for name in local.functions : "arn:${local.partition}:iam::${local.account}:role${var.role_path}${var.stack}-${name}"]
}
