locals {
  # Base64 on one line each: SAM's and systemd's settings have no lines.
  ca_certificates = join(",", [
    for certificate in regexall("-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----", coalesce(var.ca_certificates, " ")) :
    replace(certificate[0], "/\\s/", "")
  ])
  https_proxy = var.https_proxy == null ? "" : var.https_proxy
  no_proxy    = join(",", var.no_proxy)
}

output "sam_parameters" {
  description = "Parameters of template.yaml. `make deploy` passes them to SAM."
  value = {
    Stack                  = var.stack
    RunnerRoleArn          = aws_iam_role.runner.arn
    RunnerRoleId           = aws_iam_role.runner.unique_id
    LaunchTemplateArns     = join(",", [for template in aws_launch_template.runner : template.arn])
    LargestVolumeGib       = tostring(var.largest_volume_gib)
    WebhookSecretArn       = aws_secretsmanager_secret.this["webhook"].arn
    AppSecretArn           = aws_secretsmanager_secret.this["app"].arn
    PermissionsBoundaryArn = local.functions_boundary
    RolePath               = var.role_path
    EbsKmsKeyArn           = var.ebs_kms_key_arn == null ? "" : var.ebs_kms_key_arn
    HttpsProxy             = local.https_proxy
    NoProxy                = local.no_proxy
    CaCertificates         = local.ca_certificates
    VpcSubnetIds           = join(",", var.functions_subnet_ids)
    VpcSecurityGroupIds    = join(",", var.functions_security_group_ids)
  }
}

output "tags" {
  description = "Tags for the resources of `make deploy`."
  value       = var.tags
}

output "packer_variables" {
  description = "Variables of packer/. `make build-image` passes them to Packer."
  value = {
    stack             = var.stack
    tags              = var.tags
    kms_key_arn       = var.ebs_kms_key_arn == null ? "" : var.ebs_kms_key_arn
    region            = local.region
    subnet_id         = local.subnet_ids[0]
    security_group_id = aws_security_group.builder.id
    instance_profile  = aws_iam_instance_profile.builder.name
    https_proxy       = local.https_proxy
    no_proxy          = local.no_proxy
    ca_certificates   = local.ca_certificates
    keep_ssm          = var.runner_ssm
    ssh_interface     = var.builder_ssh_cidr == null ? "session_manager" : (var.egress == "public" && local.new_vpc ? "public_ip" : "private_ip")
  }
}

output "artifact_bucket" {
  description = "Bucket for the functions' zip files. `make deploy` uploads them."
  value       = aws_s3_bucket.artifacts.id
}

output "launch_templates" {
  description = "Names of the launch templates by class, for launch_template in pools.toml."
  value       = { for class, template in aws_launch_template.runner : class => template.name }
}

output "subnet_ids" {
  description = "Ids of the runners' subnets. Drover finds them by their tag, so pools.toml does not have to name them."
  value       = local.subnet_ids
}

output "roles" {
  description = "ARNs of the roles for people and workflows, by name. Empty if nobody may assume them."
  value       = { for name, role in aws_iam_role.people : name => role.arn }
}
