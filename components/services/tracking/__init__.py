"""MLflow: runs, versions, aliases.

The only place that imports mlflow.
"""
