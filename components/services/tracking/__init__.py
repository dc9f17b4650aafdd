"""MLflow: how it is reached, runs, versions, aliases.

Nothing else imports mlflow, but for the file that mlflow itself executes (runtime/pyfunc.py).
"""
