"""MLflow's server on PostgreSQL with artifacts in radosgw: what one writes, another reads."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import servers


@pytest.fixture
def where() -> servers.Where:
    found = servers.told()
    if found is None:
        pytest.skip("no servers run; make test-integration starts radosgw, PostgreSQL and MLflow")
    return found


@pytest.fixture
def client(where: servers.Where, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield mlflow.MlflowClient(where.mlflow, where.mlflow)


def test_a_run_and_its_artifact_go_there_and_back(
    where: servers.Where, client: Any, tmp_path: Path
) -> None:
    experiment = client.create_experiment(f"integration-{os.urandom(4).hex()}")
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "identity", 0.5)
    (tmp_path / "weights").write_bytes(data := os.urandom(9 * 2**20))
    client.log_artifact(run, str(tmp_path / "weights"))
    assert client.get_run(run).data.metrics == {"identity": 0.5}
    fetched = Path(client.download_artifacts(run, "weights", str(tmp_path.parent)))
    assert fetched.read_bytes() == data
    stored = servers.client(where).get_object(
        Bucket=servers.BUCKET, Key=f"artifacts/{experiment}/{run}/artifacts/weights"
    )
    assert stored["Body"].read() == data


def test_the_tracking_store_is_postgresql(where: servers.Where, client: Any) -> None:
    from sqlalchemy import create_engine, text

    name = f"integration-{os.urandom(4).hex()}"
    client.create_experiment(name)
    engine = create_engine(where.database)
    with engine.connect() as connection:
        query = text("select count(*) from experiments where name = :name")
        assert connection.execute(query, {"name": name}).scalar() == 1
    engine.dispose()


def test_an_alias_moves(client: Any) -> None:
    name = f"integration.{os.urandom(4).hex()}"
    run = client.create_run(client.create_experiment(name)).info
    client.create_registered_model(name)
    for _ in range(2):
        client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id)
    for number in ("1", "2"):
        client.set_registered_model_alias(name, "champion", number)
        assert int(client.get_model_version_by_alias(name, "champion").version) == int(number)


def test_strangers_are_refused(where: servers.Where) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{where.endpoint}/{servers.BUCKET}", timeout=30)


def test_every_server_listens_on_loopback_only(where: servers.Where) -> None:
    ports = {
        address.rpartition(":")[2].split("/")[0]
        for address in (where.endpoint, where.mlflow, where.database.rpartition("@")[2])
    }
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in sockets if line.split()[3] == "0A"]
    open_to = {int(one.split(":")[1], 16): one.split(":")[0] for one in listening}
    assert {open_to[int(port)] for port in ports} == {"0100007F"}
