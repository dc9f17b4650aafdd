"""The outside world: tracking, registry, records and locks. Nothing else imports mlflow."""
