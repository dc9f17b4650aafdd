# Three identities. None may delete an event of a line or write another over it, so what happened
# stays written whoever is compromised. Dispatcher and steps may append: who has their keys can add an
# event that is not true, a promotion for example, and `l2dm history` shows it. An uploader cannot;
# the dispatcher finds its uploads without an event. The condition is theirs and not the bucket's,
# because a restore has to put events back.
locals {
  home    = "${aws_s3_bucket.state.arn}/${var.prefix}"
  read    = ["s3:GetObject"]
  write   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
  replace = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]

  # folder below the prefix: what may be done there
  rights = {
    dispatcher = {
      probe     = local.replace, inbox = local.replace, records = local.read,
      leases    = local.write, lines = local.replace, runs = local.replace, reports = local.write,
      snapshots = local.write
    }
    step = {
      probe = local.replace, inbox = local.read, records = local.read, leases = local.read,
      lines = local.replace, runs = local.replace, reports = local.write, snapshots = local.read,
      bases = local.read
    }
    uploader = {
      probe     = local.replace, inbox = local.replace, records = local.read, lines = local.replace,
      snapshots = local.read
    }
  }
  appends = ["dispatcher", "step"] # events, each under a number that is free
}

data "aws_iam_policy_document" "rights" {
  for_each = local.rights

  statement {
    # Without a condition on the prefix: whoever may not list is told that a missing object is
    # forbidden, and a GetObject has no prefix that a condition could allow.
    sid       = "SeeTheBucket"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.state.arn]
  }

  dynamic "statement" {
    for_each = each.value
    content {
      sid       = title(statement.key)
      actions   = statement.value
      resources = ["${local.home}/${statement.key}/*"]
    }
  }

  dynamic "statement" {
    for_each = contains(local.appends, each.key) ? ["records"] : []
    content {
      sid       = "AppendEvents"
      actions   = ["s3:PutObject"]
      resources = ["${local.home}/${statement.value}/*"]
      condition {
        test     = "Null"
        variable = "s3:if-none-match"
        values   = ["false"]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "dispatcher" ? ["queue"] : []
    content {
      sid       = "TakeMessages"
      actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      resources = [aws_sqs_queue.uploads.arn]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      sid       = "UseTheKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_policy" "rights" {
  for_each    = local.rights
  name        = "${var.name}-${each.key}"
  description = "What the ${each.key} of l2dm may do in ${var.bucket}/${var.prefix}"
  policy      = data.aws_iam_policy_document.rights[each.key].json
  tags        = var.tags
}

data "aws_iam_policy_document" "trust" {
  for_each = var.kubernetes == null ? {} : {
    dispatcher = var.kubernetes.dispatcher
    step       = var.kubernetes.step
  }

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [var.kubernetes.provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.kubernetes.issuer}:sub"
      values   = ["system:serviceaccount:${var.kubernetes.namespace}:${each.value}"]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.kubernetes.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "pod" {
  for_each           = data.aws_iam_policy_document.trust
  name               = "${var.name}-${each.key}"
  assume_role_policy = each.value.json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each   = aws_iam_role.pod
  role       = each.value.name
  policy_arn = aws_iam_policy.rights[each.key].arn
}
