"""The servers of one machine: the file is understood; secrets are random and made once."""

import os
import re
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

from tests.worlds.object_stores import AT_HOME

LOCAL = Path(__file__).parents[2] / "infra/local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy, so that nobody's secrets are touched; made up."""
    ignored = shutil.ignore_patterns(".env", "client.sh")
    copy = Path(shutil.copytree(LOCAL, tmp_path / "local", ignore=ignored))
    make_secrets(copy)
    return copy


def make_secrets(folder: Path) -> dict[str, str]:
    """What is in .env after `make up` has made it."""
    subprocess.run(["sh", str(folder / "secrets.sh")], check=True)
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def rendered(folder: Path, **given: str) -> dict[str, dict[str, dict[str, object]]]:
    """compose.yaml as Compose understands it."""
    programs = [name for name in ("docker-compose",) if shutil.which(name)]
    if not programs:
        pytest.skip("docker-compose is not installed: compose.yaml was not rendered")
    environment = {name: value for name, value in os.environ.items() if "L2DM" not in name}
    environment |= given
    command = [*programs, "--env-file", ".env", "-f", "compose.yaml", "config"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(done.stdout)
    return found


def test_secrets_are_random_made_once_and_closed_to_others(folder: Path) -> None:
    first = make_secrets(folder)
    assert first == make_secrets(folder)
    long = [value for name, value in first.items() if name != "L2DM_LOCAL_S3_KEY"]
    assert len(set(long)) == len(long) == 5
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in long)
    for name in (".env", "client.sh"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    (folder / ".env").unlink()
    assert make_secrets(folder) != first


def test_a_shell_that_reads_client_sh_reaches_the_servers(folder: Path) -> None:
    command = f". {folder}/client.sh; env"
    told = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    given = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    secrets = make_secrets(folder)
    assert given["L2DM_HOME"] == "s3://l2dm/state"
    assert given["AWS_SECRET_ACCESS_KEY"] == secrets["L2DM_LOCAL_S3_SECRET"]
    assert given["MLFLOW_TRACKING_PASSWORD"] == secrets["L2DM_LOCAL_MLFLOW_PASSWORD"]
    # or MLflow sends it to http://s3:9000, which only containers can resolve
    assert given["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] == "false"


def test_compose_understands_the_file_and_waits_for_what_is_needed(folder: Path) -> None:
    services = rendered(folder)["services"]
    assert set(services) == {"s3", "buckets", "postgres", "mlflow", "dispatcher"}
    waits = {name: one.get("depends_on", {}) for name, one in services.items()}
    assert waits["dispatcher"] == {"mlflow": {"condition": "service_healthy"}}
    assert waits["mlflow"] == {
        "postgres": {"condition": "service_healthy"},
        "buckets": {"condition": "service_completed_successfully"},
    }
    for name in ("s3", "postgres"):
        assert services[name]["healthcheck"]
    for service in services.values():
        ports = service.get("ports", [])
        assert isinstance(ports, list)
        assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_the_dispatcher_gets_the_flags_of_one_variable(folder: Path) -> None:
    plain = "l2dm dispatch --listen 0.0.0.0:8080 --parallel 1 "
    assert rendered(folder)["services"]["dispatcher"]["command"] == plain
    flags = "--set train.steps=4 --every 5"
    told = rendered(folder, L2DM_DISPATCH=flags)["services"]["dispatcher"]["command"]
    assert told == plain + flags


@pytest.mark.parametrize("versioned", ["", "yes", "no"])
def test_buckets_are_made_once_and_versioned_unless_told(
    moto: str, monkeypatch: pytest.MonkeyPatch, versioned: str
) -> None:
    import boto3

    if versioned:
        monkeypatch.setenv("L2DM_VERSIONED", versioned)
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": moto}
    for name, value in {**AT_HOME, **keys, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    names = [f"made-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    for _ in range(2):
        subprocess.run([sys.executable, str(LOCAL / "buckets.py"), *names], check=True)
    s3 = boto3.client("s3")
    for name in names:
        status = s3.get_bucket_versioning(Bucket=name).get("Status")
        assert status == (None if versioned == "no" else "Enabled")


def test_no_secret_is_in_the_file() -> None:
    text = (LOCAL / "compose.yaml").read_text()
    for name, value in re.findall(r"(\w*(?:SECRET|PASSWORD|TOKEN|KEY)\w*): (.+)", text):
        assert "${L2DM_LOCAL_" in value, name
    ignored = (LOCAL / ".gitignore").read_text().split()
    assert {".env", "client.sh"} <= set(ignored)
