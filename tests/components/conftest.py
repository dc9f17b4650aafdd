from mlflow_home import home, template  # noqa: F401
from object_stores import bucket, moto, moto_bucket, objects  # noqa: F401
