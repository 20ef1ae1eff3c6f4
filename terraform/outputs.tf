output "sam_parameters" {
  description = "Parameters of template.yaml, as `make deploy` passes them."
  value = {
    Stack                  = var.stack
    RunnerRoleArn          = aws_iam_role.runner.arn
    RunnerRoleId           = aws_iam_role.runner.unique_id
    LaunchTemplateArns     = join(",", [for template in aws_launch_template.runner : template.arn])
    WebhookSecretArn       = aws_secretsmanager_secret.this["webhook"].arn
    AppSecretArn           = aws_secretsmanager_secret.this["app"].arn
    PermissionsBoundaryArn = aws_iam_policy.boundary.arn
  }
}

output "packer_variables" {
  description = "Variables of packer/, as `make build-image` passes them."
  value = {
    stack             = var.stack
    region            = local.region
    subnet_id         = local.subnet_ids[0]
    security_group_id = aws_security_group.builder.id
    instance_profile  = aws_iam_instance_profile.builder.name
    ssh_interface     = var.builder_ssh_cidr == null ? "session_manager" : (var.egress == "public" && local.new_vpc ? "public_ip" : "private_ip")
  }
}

output "launch_templates" {
  description = "For launch_template in pools.toml, by class."
  value       = { for class, template in aws_launch_template.runner : class => template.name }
}

output "subnet_ids" {
  description = "The runners' subnets; pools.toml need not name them."
  value       = local.subnet_ids
}

output "roles" {
  description = "Roles for people and workflows, by name; empty if nobody may assume them."
  value       = { for name, role in aws_iam_role.people : name => role.arn }
}
