"""A state of its own in the bucket of the running servers."""

import uuid
from pathlib import Path

import pytest

from tests.integration import servers
from tests.worlds.object_stores import AT_HOME


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    where = servers.told()
    if where is None:
        pytest.skip("no servers run; make test-integration starts radosgw, PostgreSQL and MLflow")
    for name, value in (AT_HOME | where.aws).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where.mlflow)
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return f"s3://{servers.BUCKET}/{uuid.uuid4().hex}"
