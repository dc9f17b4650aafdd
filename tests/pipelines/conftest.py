from mlflow_home import home, template  # noqa: F401
from object_stores import moto, moto_bucket  # noqa: F401
from shell_image import client  # noqa: F401
