# Two secrets without values, because Terraform's state is plain text. docs/install.md explains how to set the values, and
# docs/changing.md how to rotate them.
resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV_AWS_149:Encrypted with the account's aws/secretsmanager key; a customer managed key would protect against nobody else
  #checkov:skip=CKV2_AWS_57:GitHub has no API to rotate them; docs/changing.md has the steps
  for_each = {
    webhook = "secret with which GitHub signs webhooks"
    app     = "id and private key of the GitHub App, as JSON: {\"app_id\", \"private_key\", \"api_url\"?}"
  }

  name        = "${var.stack}/${each.key}"
  description = "Drover: ${each.value}"
  # Deleted immediately, without a recovery window: GitHub can issue new secrets in a minute, but a name in its recovery
  # window would block a new stack of the same name for a week.
  recovery_window_in_days = 0
  tags                    = local.part_of
}
