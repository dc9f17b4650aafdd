output "home" {
  description = "L2DM_HOME."
  value       = "s3://${aws_s3_bucket.state.id}/${var.prefix}"
}

output "queue_url" {
  description = "For `l2dm dispatch --queue`."
  value       = aws_sqs_queue.uploads.id
}

output "dead_queue_url" {
  description = "Messages that were received five times and not deleted."
  value       = aws_sqs_queue.dead.id
}

output "policy_arns" {
  description = "By identity: dispatcher, step, uploader."
  value       = { for name, policy in aws_iam_policy.rights : name => policy.arn }
}

output "role_arns" {
  description = "For the annotation eks.amazonaws.com/role-arn of the service accounts; empty without `kubernetes`."
  value       = { for name, role in aws_iam_role.pod : name => role.arn }
}
