from tests.worlds.cluster_world import kfp, nobody  # noqa: F401
from tests.worlds.container_engine import client  # noqa: F401
from tests.worlds.mlflow_home import home, template  # noqa: F401
from tests.worlds.object_stores import bucket, moto, moto_bucket  # noqa: F401
