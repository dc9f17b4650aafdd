variable "bucket" {
  description = "Name of the bucket that holds the state of all lines."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket the state lies: L2DM_HOME is s3://<bucket>/<prefix>."
  type        = string
  default     = "state"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]*[a-z0-9]$", var.prefix))
    error_message = "Expected letters, digits, / - and _ with a letter or digit at both ends, for example state or team/state."
  }
}

variable "name" {
  description = "Begins the name of queues, policies and roles."
  type        = string
  default     = "l2dm"
}

variable "kms_key_arn" {
  description = "KMS key for the bucket; null encrypts with the bucket's own key (SSE-S3)."
  type        = string
  default     = null
}

variable "inbox_days" {
  description = "Days after which an upload is removed, learned or not. null keeps uploads. Learned concepts never need theirs again; one that still waits then (a line that is broken for so long) is lost when its noncurrent_days are over."
  type        = number
  default     = null

  validation {
    condition     = var.inbox_days == null ? true : var.inbox_days >= 7
    error_message = "Expected at least 7 days, so that an upload that waits over a long weekend is not removed."
  }
}

variable "noncurrent_days" {
  description = "Days for which a replaced or deleted object can be brought back. A restore may go back this far."
  type        = number
  default     = 30
}

variable "kubernetes" {
  description = <<-EOT
    The cluster whose service accounts get roles (EKS, IRSA); null makes policies only.
    provider_arn: its IAM OIDC provider; issuer: that provider's address without https://.
  EOT
  type = object({
    provider_arn = string
    issuer       = string
    namespace    = optional(string, "l2dm")
    dispatcher   = optional(string, "l2dm-dispatcher")
    step         = optional(string, "l2dm-step")
  })
  default = null
}

variable "tags" {
  description = "Tags of everything that takes some."
  type        = map(string)
  default     = {}
}
