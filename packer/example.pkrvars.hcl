# Valid example values for `make check-infra`. `make build-image` uses the real values from Terraform's outputs.
region            = "eu-central-1"
subnet_id         = "subnet-0123456789abcdef0"
security_group_id = "sg-0123456789abcdef0"
instance_profile  = "drover-builder"
agent             = "example.pkrvars.hcl"
