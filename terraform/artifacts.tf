# The bucket for the functions' zip files. SAM would create one that all stacks of the account share, and everyone who may write
# to a shared bucket can replace the code of another stack between its upload and its deployment.
resource "aws_s3_bucket" "artifacts" {
  #checkov:skip=CKV_AWS_18:Only the role deploy writes here, and CloudTrail can record it
  #checkov:skip=CKV_AWS_144:The zip files can be built again
  #checkov:skip=CKV_AWS_145:The zip files are public software, encrypted with a key of S3
  #checkov:skip=CKV2_AWS_61:A rollback of CloudFormation reads the zip files of the version before, however old it is
  #checkov:skip=CKV2_AWS_62:Nothing reacts to uploads
  bucket        = "${var.stack}-artifacts-${local.account}-${local.region}"
  force_destroy = true
  tags          = local.part_of
}

resource "aws_s3_bucket_public_access_block" "artifacts" {
  bucket                  = aws_s3_bucket.artifacts.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# A replaced zip file keeps its former version.
resource "aws_s3_bucket_versioning" "artifacts" {
  bucket = aws_s3_bucket.artifacts.id

  versioning_configuration {
    status = "Enabled"
  }
}

data "aws_iam_policy_document" "artifacts" {
  statement {
    sid       = "OnlyByTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.artifacts.arn, "${aws_s3_bucket.artifacts.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "artifacts" {
  bucket     = aws_s3_bucket.artifacts.id
  policy     = data.aws_iam_policy_document.artifacts.json
  depends_on = [aws_s3_bucket_public_access_block.artifacts]
}
