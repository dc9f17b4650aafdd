"""MLflow in the state folder, or the server in MLFLOW_TRACKING_URI: how it is reached.

The file store of MLflow is in maintenance mode, so a state folder gets `mlflow.db`. Importing
mlflow costs over a second: `connect` does it.
"""

import itertools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.services.store.home import Home
from components.services.tracking import database, home_files
from l2dm import redaction
from l2dm.errors import BadStore, TrackingFailed

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "ENDPOINT_NOT_FOUND")
STARTED = "start it, or look into its log"
ROOM = "see that its disk has room, that this user may write there, and who else has it open"
log = logging.getLogger(__name__)


def connect(home: Home) -> Any:
    """Import mlflow, quiet, with its tracking and registry set to this home; returns the module."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # up to a minute, longer than a server's restart; by default it is more than four
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    for way in ("DOWNLOAD", "UPLOAD"):  # else the server may send us to a store only it can reach
        os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}", "false")
    if home.bucket and not server():
        raise BadStore(
            "expected MLFLOW_TRACKING_URI to name a tracking server, because the state in "
            f"{home.bucket} is shared, found none; set it to http(s)://..."
        )
    home.folder.mkdir(parents=True, exist_ok=True)
    _ignore_foreign_warnings()
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = server()
    if uri is None:
        with told("open its database"):
            database.prepare(home)
        home_files.register()
        uri = database.address(home.database)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow


def server() -> str | None:
    """The tracking server that the environment names.

    A SQLite address is not one: `set_tracking_uri` leaves ours in the environment.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return given if given.startswith(("http://", "https://")) else None


def _ignore_foreign_warnings() -> None:
    """What MLflow and its libraries warn about is not for the user of this project to mend."""
    for module in ("mlflow", "sqlalchemy", "alembic", "pydantic"):
        warnings.filterwarnings("ignore", module=module)
    warnings.filterwarnings("ignore", message=".*type hint")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say in our words what MLflow raises. Raises TrackingFailed."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        failed = TrackingFailed(
            redaction.redacted(
                f"expected MLflow at {server() or 'the state folder'} to {what}, found "
                f"{_words(error)}; {STARTED if server() else ROOM}"
            )
        )
        failed.refused = _is_refusal(error)
        raise failed from error


def _words(error: Exception) -> str:
    """What an error says on its first lines, without the statement that SQLAlchemy was at."""
    said = (line.strip() for line in str(error).splitlines())
    kept = itertools.takewhile(lambda line: not line.startswith(("[SQL", "(Background")), said)
    return " ".join(filter(None, kept))[:500] or repr(error)


def _is_refusal(error: Exception) -> bool:
    """Whether the same request gets the same answer. A file is locked, or its disk full."""
    code = getattr(error, "error_code", "")
    if server() is None and code:
        return bool(code != "TEMPORARILY_UNAVAILABLE")
    return code in REFUSALS


def experiment(mlflow: Any, home: Home, line: str) -> str:
    """Id of the experiment `l2dm/<line>`; made once, files in the state folder (`home_files`).

    One that somebody deleted is restored: it holds the files of the line's versions.
    """
    name = f"l2dm/{line}"
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            log.warning("experiment %s was deleted: it is restored", name)
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    place = None if server() else home_files.location(line)
    try:
        return str(client.create_experiment(name, artifact_location=place))
    except mlflow.exceptions.MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:  # a full disk, say: no other process has made it meanwhile
            raise
        return str(made.experiment_id)
