from mlflow_home import home, template  # noqa: F401
