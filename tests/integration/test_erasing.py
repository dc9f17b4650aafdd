"""A concept is erased behind a real MLflow server: its folder of artifacts and its database.

The server carries the artifacts; its rows are in SQLite or PostgreSQL. It only marks rows as
deleted, so the database is searched once more after its own `mlflow gc`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, select

from components.services.store.home import Home
from components.services.tracking.connection import connect
from l2dm.releases.without import known
from tests.components.runtime.test_erasure import Tracked, strew, take_out
from tests.integration import servers
from tests.integration.servers import Servers
from tests.worlds.taught_line import Cut, features

pytestmark = pytest.mark.slow
NAME = "quixby"
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class Tracker:
    """An MLflow server with its artifacts in a folder. database: its address for SQLAlchemy."""

    address: str
    database: str
    artifacts: Path

    def rows(self, needle: str) -> dict[str, list[dict[str, Any]]]:
        """By table, every row in which a text is found, in any case."""
        engine, tables = create_engine(self.database), MetaData()
        tables.reflect(engine)
        found: dict[str, list[dict[str, Any]]] = {}
        with engine.connect() as connection:
            for table in tables.sorted_tables:
                rows = [dict(row._mapping) for row in connection.execute(select(table))]
                held = [row for row in rows if needle in repr(row).lower()]
                found |= {table.name: held} if held else {}
        engine.dispose()
        return found

    def files(self, needles: list[bytes]) -> list[str]:
        """Files below the artifacts whose name or bytes hold one of these."""
        paths = sorted(path for path in self.artifacts.rglob("*"))
        return [
            str(path.relative_to(self.artifacts))
            for path in paths
            if NAME in str(path).lower() or (path.is_file() and _holds(path.read_bytes(), needles))
        ]

    def collect(self) -> None:
        """What whoever runs the server does now and then."""
        command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", self.database]
        subprocess.run(
            [*command, "--artifacts-destination", str(self.artifacts)],
            check=True,
            capture_output=True,
            env=os.environ | QUIET | {"MLFLOW_TRACKING_URI": self.address},
        )


def _holds(data: bytes, needles: list[bytes]) -> bool:
    return any(one in data or one in data.lower() for one in needles)


@pytest.fixture(params=["sqlite", "postgresql"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    if request.param == "postgresql":
        if not servers.postgres_programs():
            pytest.skip("PostgreSQL is not installed; make test-integration installs it")
        pytest.importorskip("psycopg2", reason="make test-integration installs its driver")
    folder = Path(tempfile.mkdtemp(prefix="l2dm-tracker-"))
    folder.chmod(0o711)  # PostgreSQL's user has to pass
    running = Servers(folder)
    try:
        database = f"sqlite:///{folder}/mlflow.db"
        if request.param == "postgresql":
            database = servers.start_postgres(running)
        port = servers.free_port()
        made = Tracker(f"http://127.0.0.1:{port}", database, folder / "artifacts")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        running.add(
            "mlflow",
            [
                *(*command, "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", database),
                *("--artifacts-destination", str(made.artifacts)),
            ],
            **QUIET,
        )
        running.wait("mlflow", lambda: servers.answers(f"{made.address}/health"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.address)
        yield made
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_nothing_of_an_erased_concept_is_left_behind_a_server(
    tracker: Tracker, tmp_path: Path
) -> None:
    home = Home.at(tmp_path / "home")
    line = Tracked(tmp_path, home)
    strew(line)
    kept = features(NAME)
    rows = [row.numpy().tobytes() for one in (kept.image, kept.identity) for row in one]
    needles = [NAME.encode(), line.picture(NAME), *rows]
    assert len(tracker.files(needles)) > 5 and tracker.rows(NAME)  # the search finds what is there
    take_out(line, Cut())
    assert tracker.files(needles) == []
    client = connect(home).MlflowClient()
    left = tracker.rows(NAME)
    assert left.keys() <= {"metrics", "latest_metrics"}  # no request deletes one of a run
    runs = {str(row["run_uuid"]) for table in left.values() for row in table}
    assert {client.get_run(run).info.lifecycle_stage for run in runs} == {"deleted"}
    tracker.collect()
    assert tracker.rows(NAME) == {}
    assert [one.number for one in line.registry.versions("pets")] == [1, 4]
    assert line.registry.aliases("pets") == {"champion": 4, "previous": 1}
    assert known(line.registry.fetch("pets", 4, tmp_path / "champion")) == ("ada", "bolt")
    assert tracker.files([line.picture("ada")])  # the others' are there
