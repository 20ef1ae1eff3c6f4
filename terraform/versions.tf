terraform {
  # 1.11 supports lock files in the state bucket, without a lock table, and override_during of mock_provider.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}
