"""What MLflow itself loads, through an entry point of the package: files beside a database.

So `mlflow.pyfunc.load_model("models:/l2dm.pets@champion")` finds a version by the address of the
database alone, wherever the state folder lies by now. It imports nothing of ours.
"""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SCHEME = "mlflow-artifacts"
FOLDER = "artifacts"  # beside the database


def files_of(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """MLflow's access to the files of a location `mlflow-artifacts:/...`.

    A database that is a file has its files beside it; everything else is a server, as MLflow has
    it. Raises ValueError for a location that leads elsewhere.
    """
    import mlflow
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    tracking = tracking_uri or mlflow.get_tracking_uri()
    if not tracking.startswith("sqlite"):
        return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)
    from sqlalchemy.engine import make_url

    database = Path(make_url(tracking).database or "").resolve()
    return LocalArtifactRepository(folder_below(database.parent / FOLDER, artifact_uri).as_uri())


def folder_below(artifacts: Path, uri: str) -> Path:
    """What `mlflow-artifacts:/...` means here. Raises ValueError for what leads elsewhere."""
    parts = [part for part in unquote(urlsplit(uri).path).split("/") if part]
    if urlsplit(uri).scheme != SCHEME or not parts or ".." in parts:
        raise ValueError(f"expected {SCHEME}:/ and a path in {artifacts}, found {uri!r}")
    return artifacts.joinpath(*parts)
