# A message per finished upload. It only wakes the dispatcher, so nothing is lost with it: one that
# is no event is told in the dispatcher's log and deleted. What was received five times and never
# deleted, by a dispatcher that may not or by somebody else, goes aside instead of round and round.
resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-uploads-dead"
  message_retention_seconds = 14 * 24 * 3600
  sqs_managed_sse_enabled   = true
  tags                      = var.tags
}

resource "aws_sqs_queue" "uploads" {
  name                       = "${var.name}-uploads"
  message_retention_seconds  = 24 * 3600
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = 60
  sqs_managed_sse_enabled    = true
  tags                       = var.tags
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 5
  })
}

data "aws_iam_policy_document" "queue" {
  statement {
    sid       = "OurBucketSends"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.uploads.arn]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_s3_bucket.state.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.here.account_id]
    }
  }
}

resource "aws_sqs_queue_policy" "uploads" {
  queue_url = aws_sqs_queue.uploads.id
  policy    = data.aws_iam_policy_document.queue.json
}

resource "aws_s3_bucket_notification" "uploads" {
  bucket     = aws_s3_bucket.state.id
  depends_on = [aws_sqs_queue_policy.uploads]
  queue {
    id            = "finished-uploads"
    queue_arn     = aws_sqs_queue.uploads.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = "${var.prefix}/inbox/"
    filter_suffix = "/concept.json"
  }
}
