from mlflow_home import home, template  # noqa: F401
from object_stores import bucket, moto, moto_bucket, objects  # noqa: F401
from wakeup_sources import locked_webhook, no_thread_is_left, open_webhook  # noqa: F401
