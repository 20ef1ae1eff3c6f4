# Policies of the roles `plan` and `infrastructure`. Those of `image` and `deploy` have files of their own. Many actions of
# EC2 and CloudFormation do not support a resource restriction before the resource exists. Where a restriction is
# possible, it is by name, tag, region or calling service. Names are written in full: `drover-*` would also be the names
# of a stack `drover-eu`.

locals {
  arn_prefix = "${local.region}:${local.account}"
  # A list, so that the policies have no statement for the state if there is no bucket.
  state_bucket = var.state_bucket == null ? [] : ["arn:${local.partition}:s3:::${var.state_bucket}"]

  functions = ["ingest", "scaler", "janitor"]
  function_logs = concat(
    [for name in local.functions : "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/lambda/${var.stack}-${name}"],
    [for name in local.functions : "arn:${local.partition}:logs:${local.arn_prefix}:log-group:/aws/lambda/${var.stack}-${name}:*"],
  )
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

# `make plan`: what Terraform reads, except for values of secrets and objects other than the state. A test compares the
# list with Terraform's calls. `ec2:Describe*` would also allow reading the user data of all instances.
data "aws_iam_policy_document" "plan" {
  #checkov:skip=CKV_AWS_356:Describe calls do not support resource-level permissions
  source_policy_documents = [data.aws_iam_policy_document.read_state.json]

  statement {
    sid = "Look"
    actions = [
      "ec2:DescribeAccountAttributes", "ec2:DescribeAddresses", "ec2:DescribeAddressesAttribute",
      "ec2:DescribeAvailabilityZones", "ec2:DescribeImages", "ec2:DescribeInternetGateways",
      "ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeNatGateways",
      "ec2:DescribeNetworkAcls", "ec2:DescribeNetworkInterfaces", "ec2:DescribePrefixLists", "ec2:DescribeRouteTables",
      "ec2:DescribeSecurityGroupRules", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeTags",
      "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints", "ec2:DescribeVpcs",
    ]
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

  # The bucket's settings, not its objects.
  statement {
    sid = "LookAtOwnBucket"
    actions = [
      "s3:GetAccelerateConfiguration", "s3:GetBucket*", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration",
      "s3:GetReplicationConfiguration", "s3:ListBucket",
    ]
    resources = [aws_s3_bucket.artifacts.arn]
  }

  statement {
    sid       = "LookAtOwnSecrets"
    actions   = ["secretsmanager:DescribeSecret", "secretsmanager:GetResourcePolicy"]
    resources = ["arn:${local.partition}:secretsmanager:${local.arn_prefix}:secret:${var.stack}/*"]
  }
}

locals {
  spot_role = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
  own_iam = concat(
    [for name in ["plan", "infrastructure", "image", "deploy"] : "arn:${local.partition}:iam::${local.account}:role${var.role_path}${var.stack}-${name}"],
    flatten([for name in ["runner", "builder"] :
      [for kind in ["role", "instance-profile"] : "arn:${local.partition}:iam::${local.account}:${kind}${var.role_path}${var.stack}-${name}"]
    ]),
    [for name in ["boundary", "cloudformation", "cloudformation-roles"] : "arn:${local.partition}:iam::${local.account}:policy${var.role_path}${var.stack}-${name}"],
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

  # Spot launches need this role of the account.
  statement {
    sid       = "CreateTheSpotRole"
    actions   = ["iam:CreateServiceLinkedRole", "iam:GetRole"]
    resources = [local.spot_role]
  }

  # That role uses the key of encrypted volumes. Not `kms:ViaService`: `make infrastructure` calls KMS itself.
  dynamic "statement" {
    for_each = local.ebs_kms_key

    content {
      sid       = "LendTheVolumesKeyToSpot"
      actions   = ["kms:CreateGrant"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:GranteePrincipal"
        values   = [local.spot_role]
      }
    }
  }

  statement {
    sid       = "OwnImages"
    actions   = ["ssm:AddTagsToResource", "ssm:DeleteParameter", "ssm:PutParameter", "ssm:RemoveTagsFromResource"]
    resources = ["arn:${local.partition}:ssm:${local.arn_prefix}:parameter/${var.stack}/image/*"]
  }

  statement {
    sid = "OwnBucket"
    actions = [
      "s3:CreateBucket", "s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:PutBucketOwnershipControls", "s3:PutBucketPolicy",
      "s3:PutBucketPublicAccessBlock", "s3:PutBucketTagging", "s3:PutBucketVersioning", "s3:PutEncryptionConfiguration",
      "s3:PutLifecycleConfiguration",
    ]
    resources = [aws_s3_bucket.artifacts.arn]
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
