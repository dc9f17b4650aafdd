"""The images, and a whole run in them: nobody's user, nothing writable but what is mounted."""

import base64
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.image import IMAGE
from components.services.line.leases import Leases
from components.services.line.run_journal import read_costs
from components.services.store.home import Home
from l2dm import __version__
from l2dm.doors import Concept
from l2dm.spec import Spec, override, to_json
from pipelines.commands.lines.status import status_of
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.places.compilation import STEPS
from pipelines.places.containers import LABEL, DockerRuns
from pipelines.places.run_here import Job
from pipelines.places.runs import Look
from pipelines.places.settings import parse
from tests.integration.servers import answers, free_port
from tests.worlds.image_engine import VARIABLE, client, docker
from tests.worlds.uploads import pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # of a busy machine
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason="no container engine was started; make test-containers starts one and says why not",
    ),
]

ROOT = Path(__file__).parents[2]
SERVICE = IMAGE.replace("l2dm:", "l2dm-service:")
NOBODY = "23456:0"  # a user that neither the image nor this machine knows
MAX_BYTES = 3.5e9
TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=4", "train.batch=2", "train.method=l2dm"),
    *("l2dm.replay_batch=1", "train.checkpoint_every=1"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "gate.max_text_loss=9"),
)
SPEC = override(Spec(), TINY)
FLAGS = (
    *("--user", NOBODY, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
)


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", *FLAGS, "--network", "none", image, *command)


def logs(name: str) -> str:
    done = subprocess.run([client(), "logs", name], capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("image", "title"), [(IMAGE, "l2dm step"), (SERVICE, "l2dm service")])
def test_an_image_says_what_it_is_and_is_small_enough(image: str, title: str) -> None:
    (facts,) = json.loads(docker("image", "inspect", image))
    print(f"{image}: {facts['Size'] / 1e9:.2f} GB")
    assert facts["Size"] <= MAX_BYTES
    assert facts["Config"]["User"] == "10001:0"
    assert facts["Config"]["Entrypoint"] is None  # the runner's command is the whole command
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert labels["org.opencontainers.image.title"] == title


def test_a_step_has_of_kfp_the_executor_and_nothing_of_its_pins() -> None:
    listed = json.loads(inside(IMAGE, "cat", "/opt/l2dm/sbom.cdx.json"))
    versions = {one["name"].lower(): one["version"] for one in listed["components"]}
    assert {"torch", "kfp", "diffusers", "mlflow", "l2dm"} <= {*versions, "l2dm"}
    assert not {"kfp-server-api", "kfp-pipeline-spec", "kubernetes", "pip"} & set(versions)
    found = json.loads(
        inside(
            IMAGE,
            "python3",
            "-c",
            "import json; from importlib.metadata import distributions; "
            "print(json.dumps({d.name.lower(): d.version for d in distributions()}))",
        )
    )
    assert found.pop("l2dm") == __version__
    versions.pop("l2dm", None)
    assert versions == found  # the bill of materials is what is there


def test_the_service_has_what_it_needs() -> None:
    code = (
        "import kfp.kubernetes, kfp_server_api, psycopg2, flask_wtf, mlflow.server.auth; "
        "import pipelines.places.cluster, prometheus_client"
    )
    inside(SERVICE, "python3", "-c", code)
    assert "dispatch" in inside(SERVICE, "l2dm", "--help")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A state folder with one upload, which root and the steps' user both write to.

    `l2dm dispatch` refuses such a pair in a folder, because files of one are closed to the other;
    here everything is open to everybody.
    """
    before = os.umask(0)
    home = Home.at(tmp_path / "home")
    concept = Concept("rex", "dog")
    submit_pictures(home, pictures(tmp_path / "in"), "pets", concept, SPEC.intake)
    subprocess.run(["chmod", "-R", "a+rwX", str(home.folder)], check=True)
    yield home
    os.umask(before)


@contextmanager
def renewed(home: Home, line: str) -> Iterator[int]:
    """The line's lease, held as a dispatcher would."""
    leases, over = Leases(home.store), threading.Event()
    lease = leases.take(line, "test")

    def renew() -> None:
        held = lease
        while not over.wait(15):
            held = leases.renew(held)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease.fence
    finally:
        over.set()
        thread.join()


def run(home: Home) -> tuple[Look, Job]:
    """The upload of `home` through DockerRuns; how its run ended."""
    settings = parse(
        {
            "environment": {"OMP_NUM_THREADS": "1"},
            "docker": {"image": IMAGE, "user": NOBODY, "network": "none", "tmp": "512Mi"},
        }
    )
    runs, name = DockerRuns(home, settings), "pets-0001-rex-1"
    runs.prepare()
    with renewed(home, "pets") as fence:
        job = Job("pets", "rex", "pocket", to_json(SPEC), home, fence)
        try:
            runs.start(name, job)
            while (look := runs.look(name)).state == "running":
                time.sleep(0.5)
        finally:
            runs.close()
    return look, job


def test_a_concept_is_learned_by_nobody_on_a_read_only_file_system(home: Home) -> None:
    began = time.monotonic()
    look, job = run(home)
    assert look.state == "succeeded", look.text
    print(f"six steps in containers: {time.monotonic() - began:.0f} s")

    # a bare success proves nothing: the declared outputs are there, written by the steps' user
    assert set(read_costs(home.store, job.key)) == set(STEPS)
    (release,) = job.folder.glob("pipeline/*/promote/release/manifest.json")
    assert release.stat().st_uid == int(NOBODY.partition(":")[0])
    (line,) = status_of(home, "pets", refresh=True)
    assert (line["champion"], line["concepts"][0]["state"]) == (1, "promoted")
    assert docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}") == ""


def test_a_refused_upload_is_a_failed_run(home: Home) -> None:
    next(home.upload("pets", "rex").glob("*.png")).write_bytes(b"other bytes")
    look, _ = run(home)
    assert look.state == "failed" and look.failure is not None
    assert (look.failure.step, look.failure.kind) == ("intake", "BadUpload")


def test_the_dispatcher_is_healthy_in_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="l2dm")
    port = free_port()
    given = {
        **keys,
        "AWS_ENDPOINT_URL": endpoint,
        "L2DM_HOME": "s3://l2dm/team",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "L2DM_HEALTH": f"http://127.0.0.1:{port}/healthz",
    }
    flags = [part for name, value in given.items() for part in ("--env", f"{name}={value}")]
    command = ["l2dm", "dispatch", "--listen", f"127.0.0.1:{port}"]
    name = f"l2dm-dispatcher-{port}"
    health = ("--health-interval", "1s", "--name", name, "--network", "host", "--detach")
    docker("run", *FLAGS, *health, *flags, SERVICE, *command)
    try:
        state = ""
        for _ in range(120):
            state = docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()
            if state == "healthy":
                break
            time.sleep(0.5)
        assert state == "healthy", logs(name)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert "l2dm_last_look_timestamp_seconds" in answer.read().decode()
    finally:
        docker("rm", "--force", name)
        server.stop()


def test_the_image_serves_an_mlflow_that_asks_for_a_password(tmp_path: Path) -> None:
    port, script = free_port(), ROOT / "infra/local/mlflow.sh"
    given = {
        "MLFLOW_DATABASE": "sqlite:////tmp/mlflow.db",
        "MLFLOW_AUTH_DATABASE": "sqlite:////tmp/auth.db",
        "MLFLOW_ARTIFACTS": "/tmp/artifacts",
        "MLFLOW_ADMIN_PASSWORD": "correct horse battery",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "0123456789abcdef",
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
    }
    flags = [part for name, value in given.items() for part in ("--env", f"{name}={value}")]
    name, mounted = f"l2dm-mlflow-{port}", ("--volume", f"{script}:/mlflow.sh:ro")
    command = ("--name", name, "--network", "host", "--detach", *flags, SERVICE, "sh", "/mlflow.sh")
    docker("run", *FLAGS, *mounted, *command)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 180
        while not answers(f"{address}/health"):
            assert time.monotonic() < until, logs(name)
            time.sleep(1)
        assert asked(address, "admin", "wrong") == asked(address, "", "") == 401
        assert asked(address, "admin", given["MLFLOW_ADMIN_PASSWORD"]) == 200
    finally:
        docker("rm", "--force", name)


def asked(address: str, user: str, password: str) -> int:
    """The status of a request for the experiments."""
    url = f"{address}/api/2.0/mlflow/experiments/search?max_results=5"
    request = urllib.request.Request(url)
    if user:
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
