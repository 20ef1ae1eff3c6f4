terraform {
  # 1.11: lock files in the state's bucket (no lock table), and mock_provider's override_during.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}
