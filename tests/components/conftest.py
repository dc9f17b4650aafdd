from tests.worlds.mlflow_home import home, template  # noqa: F401
from tests.worlds.object_stores import bucket, moto, moto_bucket, objects  # noqa: F401
from tests.worlds.wakeup_sources import locked_webhook, no_thread_is_left, open_webhook  # noqa: F401
