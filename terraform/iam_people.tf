# Policies of the roles in iam.tf. Many actions of EC2 and CloudFormation do not support a resource restriction before the
# resource exists. Where a restriction is possible, it is by name, tag, region or calling service.

locals {
  arn_prefix = "${local.region}:${local.account}"
  # A list, so that the policies have no statement for the state if there is no bucket.
  state_bucket = var.state_bucket == null ? [] : ["arn:${local.partition}:s3:::${var.state_bucket}"]
}

# `make build-image` and `make deploy` read Terraform's outputs.
data "aws_iam_policy_document" "read_state" {
  dynamic "statement" {
    for_each = local.state_bucket

    content {
      sid       = "ReadTheState"
      actions   = ["s3:GetObject", "s3:ListBucket"]
      resources = [statement.value, "${statement.value}/${var.stack}/*"]
    }
  }
}

# `make plan`: everything that Terraform reads, except for values of secrets and objects other than the state.
data "aws_iam_policy_document" "plan" {
  #checkov:skip=CKV_AWS_356:Describe calls do not support resource-level permissions
  source_policy_documents = [data.aws_iam_policy_document.read_state.json]

  statement {
    sid       = "Look"
    actions   = ["ec2:Describe*"]
    resources = ["*"]
  }

  statement {
    sid = "LookAtOwnRoles"
    actions = [
      "iam:GetInstanceProfile", "iam:GetOpenIDConnectProvider", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:GetRole",
      "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListPolicyVersions",
      "iam:ListRolePolicies",
    ]
    resources = local.own_iam
  }

  statement {
    sid       = "LookAtOwnImages"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:ListTagsForResource"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }

  statement {
    sid       = "LookForParameters"
    actions   = ["ssm:DescribeParameters"]
    resources = ["*"]
  }

  statement {
    sid       = "LookAtOwnSecrets"
    actions   = ["secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"]
    resources = ["arn:${local.partition}:secretsmanager:${local.arn_prefix}:secret:${var.stack}/*"]
  }
}

locals {
  own_iam = concat(
    [for kind in ["role", "instance-profile", "policy"] : "arn:${local.partition}:iam::${local.account}:${kind}/${var.stack}-*"],
    ["arn:${local.partition}:iam::${local.account}:oidc-provider/token.actions.githubusercontent.com"],
  )
}

# `make infrastructure`. `make destroy` needs an administrator, because it also deletes resources that other roles
# created.
data "aws_iam_policy_document" "infrastructure" {
  #checkov:skip=CKV_AWS_356:Create calls of EC2 have no existing resource to name; they are restricted to the region
  #checkov:skip=CKV_AWS_109:The role manages roles, restricted by name
  #checkov:skip=CKV_AWS_111:Create calls of EC2 have no existing resource to name; they are restricted to the region
  source_policy_documents = [data.aws_iam_policy_document.plan.json]

  statement {
    sid = "Network"
    actions = [
      "ec2:AllocateAddress", "ec2:AssociateRouteTable", "ec2:AttachInternetGateway", "ec2:AuthorizeSecurityGroupEgress",
      "ec2:AuthorizeSecurityGroupIngress", "ec2:CreateInternetGateway", "ec2:CreateLaunchTemplate",
      "ec2:CreateLaunchTemplateVersion", "ec2:CreateNatGateway", "ec2:CreateRoute", "ec2:CreateRouteTable",
      "ec2:CreateSecurityGroup", "ec2:CreateSubnet", "ec2:CreateTags", "ec2:CreateVpc", "ec2:CreateVpcEndpoint",
      "ec2:DeleteInternetGateway", "ec2:DeleteLaunchTemplate", "ec2:DeleteNatGateway", "ec2:DeleteRoute",
      "ec2:DeleteRouteTable", "ec2:DeleteSecurityGroup", "ec2:DeleteSubnet", "ec2:DeleteTags", "ec2:DeleteVpc",
      "ec2:DeleteVpcEndpoints", "ec2:DetachInternetGateway", "ec2:DisassociateAddress", "ec2:DisassociateRouteTable",
      "ec2:ModifyLaunchTemplate", "ec2:ModifySecurityGroupRules", "ec2:ModifySubnetAttribute", "ec2:ModifyVpcAttribute",
      "ec2:ModifyVpcEndpoint", "ec2:ReleaseAddress", "ec2:ReplaceRoute", "ec2:ReplaceRouteTableAssociation",
      "ec2:RevokeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress",
      "ec2:UpdateSecurityGroupRuleDescriptionsEgress", "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  statement {
    sid = "OwnRoles"
    actions = [
      "iam:AddRoleToInstanceProfile", "iam:AttachRolePolicy", "iam:CreateInstanceProfile",
      "iam:CreateOpenIDConnectProvider", "iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:CreateRole",
      "iam:DeleteInstanceProfile", "iam:DeleteOpenIDConnectProvider", "iam:DeletePolicy", "iam:DeletePolicyVersion",
      "iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePolicy",
      "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile", "iam:TagOpenIDConnectProvider", "iam:TagPolicy",
      "iam:TagRole", "iam:UntagInstanceProfile", "iam:UntagOpenIDConnectProvider", "iam:UntagPolicy", "iam:UntagRole",
      "iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:UpdateRoleDescription",
    ]
    resources = local.own_iam
  }

  # Adding a role to an instance profile passes the role to EC2.
  statement {
    sid       = "PassTheMachinesRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.runner.arn, aws_iam_role.builder.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }

  statement {
    sid       = "OwnImages"
    actions   = ["ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:PutParameter", "ssm:RemoveTagsFromResource"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }

  # The secrets without their values: this role never reads or writes a value.
  statement {
    sid = "OwnSecrets"
    actions = [
      "secretsmanager:CreateSecret", "secretsmanager:DeleteSecret", "secretsmanager:RestoreSecret",
      "secretsmanager:TagResource", "secretsmanager:UntagResource", "secretsmanager:UpdateSecret",
    ]
    resources = ["arn:${local.partition}:secretsmanager:${local.arn_prefix}:secret:${var.stack}/*"]
  }

  dynamic "statement" {
    for_each = local.state_bucket

    content {
      sid       = "WriteTheState"
      actions   = ["s3:DeleteObject", "s3:PutObject"]
      resources = ["${statement.value}/${var.stack}/*"]
    }
  }
}

# `make build-image`: one machine, one image, one parameter. The build tags what it creates with drover:image-of, and this
# role may change or delete only resources with that tag. The tag drover:stack is not used, because the janitor would
# terminate the machine as an orphan.
data "aws_iam_policy_document" "image" {
  #checkov:skip=CKV_AWS_356:Describe and Create calls of EC2 have no existing resource to name
  #checkov:skip=CKV_AWS_111:Create calls of EC2 have no existing resource to name
  #checkov:skip=CKV_AWS_109:CreateTags is needed for the resources that the build creates
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

  statement {
    sid     = "Launch"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:key-pair/packer_*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:network-interface/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:security-group/${aws_security_group.builder.id}",
      "arn:${local.partition}:ec2:${local.arn_prefix}:subnet/*",
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

  statement {
    sid       = "CreateImage"
    actions   = ["ec2:CreateImage"]
    resources = ["*"]
  }

  # Packer's amazon-ebs builder tags most resources on creation, but the image and its snapshots afterwards.
  statement {
    sid     = "Tag"
    actions = ["ec2:CreateTags"]
    resources = [
      "arn:${local.partition}:ec2:${local.arn_prefix}:instance/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:volume/*",
      "arn:${local.partition}:ec2:${local.arn_prefix}:key-pair/packer_*",
      "arn:${local.partition}:ec2:${local.region}::image/*",
      "arn:${local.partition}:ec2:${local.region}::snapshot/*",
    ]
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

# `make deploy`, and `drover` for operators. CloudFormation creates the resources on behalf of this role: the permissions
# for that apply only to calls that come from CloudFormation.
data "aws_iam_policy_document" "deploy" {
  #checkov:skip=CKV_AWS_356:Calls without resource-level permissions are allowed only through CloudFormation, except for Describe calls
  #checkov:skip=CKV_AWS_109:Roles are restricted by name and boundary, and to calls through CloudFormation
  #checkov:skip=CKV_AWS_111:Only through CloudFormation, and restricted by name where the service supports it
  source_policy_documents = [data.aws_iam_policy_document.read_state.json]

  statement {
    sid = "OwnStack"
    actions = [
      "cloudformation:CreateChangeSet", "cloudformation:DeleteChangeSet", "cloudformation:DeleteStack",
      "cloudformation:DescribeChangeSet", "cloudformation:DescribeStackEvents", "cloudformation:DescribeStackResources",
      "cloudformation:DescribeStacks", "cloudformation:ExecuteChangeSet", "cloudformation:GetTemplate",
      "cloudformation:GetTemplateSummary", "cloudformation:ListStackResources",
    ]
    resources = [
      "arn:${local.partition}:cloudformation:${local.arn_prefix}:stack/${var.stack}/*",
      "arn:${local.partition}:cloudformation:${local.arn_prefix}:stack/aws-sam-cli-managed-default/*",
      "arn:${local.partition}:cloudformation:${local.region}:aws:transform/Serverless-2016-10-31",
    ]
  }

  # These calls name no stack, because it does not exist yet.
  statement {
    sid       = "LookForStacks"
    actions   = ["cloudformation:GetTemplateSummary", "cloudformation:ValidateTemplate"]
    resources = ["*"]
  }

  # SAM's bucket for the zip files.
  statement {
    sid = "Zips"
    actions = [
      "s3:CreateBucket", "s3:GetBucketLocation", "s3:GetBucketPolicy", "s3:GetObject", "s3:ListBucket",
      "s3:PutBucketPolicy", "s3:PutBucketPublicAccessBlock", "s3:PutBucketTagging", "s3:PutBucketVersioning",
      "s3:PutEncryptionConfiguration", "s3:PutObject",
    ]
    resources = [
      "arn:${local.partition}:s3:::aws-sam-cli-managed-default-*",
      "arn:${local.partition}:s3:::aws-sam-cli-managed-default-*/*",
    ]
  }

  statement {
    sid = "OwnThings"
    actions = [
      "cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards", "cloudwatch:DescribeAlarms", "cloudwatch:GetDashboard",
      "cloudwatch:PutDashboard", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource",
      "dynamodb:CreateTable", "dynamodb:DeleteTable", "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable",
      "dynamodb:DescribeTimeToLive", "dynamodb:ListTagsOfResource", "dynamodb:TagResource",
      "dynamodb:UpdateContinuousBackups", "dynamodb:UpdateTable", "dynamodb:UpdateTimeToLive",
      "events:DeleteRule", "events:DescribeRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets",
      "events:TagResource", "events:ListTargetsByRule",
      "lambda:AddPermission", "lambda:CreateFunction", "lambda:CreateFunctionUrlConfig", "lambda:DeleteFunction",
      "lambda:DeleteFunctionConcurrency", "lambda:DeleteFunctionEventInvokeConfig", "lambda:DeleteFunctionUrlConfig",
      "lambda:GetFunction", "lambda:GetFunctionCodeSigningConfig", "lambda:GetFunctionConfiguration",
      "lambda:GetFunctionEventInvokeConfig", "lambda:GetFunctionRecursionConfig", "lambda:GetFunctionUrlConfig",
      "lambda:GetPolicy", "lambda:GetRuntimeManagementConfig", "lambda:ListTags", "lambda:PutFunctionConcurrency",
      "lambda:PutFunctionEventInvokeConfig", "lambda:PutFunctionRecursionConfig", "lambda:RemovePermission",
      "lambda:TagResource", "lambda:UntagResource", "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration",
      "lambda:UpdateFunctionUrlConfig",
      "logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:ListTagsForResource", "logs:PutRetentionPolicy",
      "logs:TagResource",
      "sns:CreateTopic", "sns:DeleteTopic", "sns:GetTopicAttributes", "sns:ListSubscriptionsByTopic",
      "sns:ListTagsForResource", "sns:SetTopicAttributes", "sns:Subscribe", "sns:TagResource",
      "sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags",
      "sqs:SetQueueAttributes", "sqs:TagQueue",
    ]
    resources = [
      "arn:${local.partition}:cloudwatch:${local.arn_prefix}:alarm:${var.stack}: *",
      "arn:${local.partition}:cloudwatch::${local.account}:dashboard/${var.stack}",
      "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}",
      "arn:${local.partition}:dynamodb:${local.arn_prefix}:table/${var.stack}-boot",
      "arn:${local.partition}:events:${local.arn_prefix}:rule/${var.stack}-*",
      "arn:${local.partition}:lambda:${local.arn_prefix}:function:${var.stack}-*",
      "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/apigateway/${var.stack}-*",
      "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/lambda/${var.stack}-*",
      "arn:${local.partition}:sns:${local.arn_prefix}:${var.stack}-alarms",
      "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}",
      "arn:${local.partition}:sqs:${local.arn_prefix}:${var.stack}-dead-letters",
    ]

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

  # Event source mappings, subscriptions and HTTP APIs have generated ids, so a policy cannot name them in advance.
  statement {
    sid = "UnnamedThings"
    actions = [
      "apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST", "apigateway:PUT",
      "lambda:CreateEventSourceMapping", "lambda:DeleteEventSourceMapping", "lambda:GetEventSourceMapping",
      "lambda:UpdateEventSourceMapping", "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups",
      "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy",
      "logs:UpdateLogDelivery", "sns:GetSubscriptionAttributes", "sns:Unsubscribe",
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
      values   = [aws_iam_policy.boundary.arn]
    }
  }

  statement {
    sid       = "KeepRoles"
    actions   = ["iam:DeleteRole", "iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:TagRole", "iam:UpdateAssumeRolePolicy"]
    resources = local.function_roles
  }

  statement {
    sid = "KeepTheirPolicy"
    actions = [
      "iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:GetPolicy",
      "iam:GetPolicyVersion", "iam:ListPolicyVersions",
    ]
    resources = ["arn:${local.partition}:iam::${local.account}:policy/${var.stack}-control-plane"]
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
  }

  # `make smoke` runs the janitor. A changed description makes a function read a new key (docs/changing.md).
  statement {
    sid       = "OperateTheFunctions"
    actions   = ["lambda:InvokeFunction", "lambda:UpdateFunctionConfiguration"]
    resources = ["arn:${local.partition}:lambda:${local.arn_prefix}:function:${var.stack}-*"]
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
      "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates",
      "ec2:DescribeSubnets",
    ]
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
  }

  # `drover doctor` calls RunInstances with DryRun, and no IAM condition can require DryRun. This grants nothing
  # new: a role that deploys the scaler's code already decides what the scaler launches from these templates.
  statement {
    sid       = "TryALaunch"
    actions   = ["ec2:RunInstances"]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "ec2:LaunchTemplate"
      values   = [for template in aws_launch_template.runner : template.arn]
    }
  }

  # RunInstances tags what it launches and resolves the template's image on behalf of the caller.
  statement {
    sid     = "TryALaunchWithTags"
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

  statement {
    sid       = "TryALaunchWithTheImage"
    actions   = ["ssm:GetParameters"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }

  statement {
    sid       = "TryALaunchWithTheRunnersRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.runner.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
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

locals {
  function_roles = [for name in ["ingest", "scaler", "janitor"] : "arn:${local.partition}:iam::${local.account}:role/${var.stack}-${name}"]
}
