from cluster_world import kfp, nobody  # noqa: F401
from container_engine import client  # noqa: F401
from mlflow_home import home, template  # noqa: F401
from object_stores import bucket, moto, moto_bucket  # noqa: F401
