"""The outside world: tracking, registry, records, leases, objects. Nothing else imports mlflow."""
