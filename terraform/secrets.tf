# Two secrets without values: what Terraform knows stands in its state in plain text. docs/install.md says how they get
# their values, and docs/changing.md how they are rotated.
resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV_AWS_149:Encrypted with the account's aws/secretsmanager key; an own one protects from nobody else in the account
  #checkov:skip=CKV2_AWS_57:GitHub has no call to rotate them with; docs/changing.md has the steps
  for_each = {
    webhook = "The secret that GitHub signs webhooks with"
    app     = "The GitHub App: {\"app_id\", \"private_key\", \"api_url\"?}"
  }

  name        = "${var.stack}/${each.key}"
  description = "Drover: ${each.value}"
  # Gone at once when destroyed: GitHub makes new ones in a minute, while a name that stays taken for a week would keep a
  # stack from being made again.
  recovery_window_in_days = 0
  tags                    = local.part_of
}
