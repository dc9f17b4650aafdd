"""`make up` as a whole: a person's upload becomes the champion and stays it, whatever ends.

The images that are not ours come from their registry; where none is reachable, stand-ins are built
from Debian's packages (`stand_ins/`): the same ports, settings and probes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from l2dm.pocket.world.scenes import TUNING_SEEDS, identity, photos
from tests.integration.servers import free_port
from tests.worlds.image_engine import BASE, VARIABLE, client, docker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # of a busy machine
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason="no container engine was started; make test-containers starts one and says why not",
    ),
]

LOCAL = Path(__file__).parents[2] / "infra/local"
STAND_INS = Path(__file__).parent / "stand_ins"
SERVERS = ("s3", "postgres", "mlflow", "dispatcher")
LIGHT = (
    *("prior.count=2", "memory.candidates=1", "train.steps=4", "train.batch=2"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_text_loss=9"),
)
START_SECONDS, BUSY_SECONDS = 180, 900


@dataclass(frozen=True)
class Stack:
    """A copy of infra/local, so that nobody's secrets are touched, and its own ports."""

    folder: Path
    environment: dict[str, str]

    def script(self, name: str, **environment: str) -> None:
        """What `make up` and `make down` run."""
        given = self.environment | environment
        subprocess.run(["sh", str(self.folder / name)], check=True, env=given)

    def l2dm(self, *command: str) -> str:
        """What a person types in a shell that has read client.sh."""
        line = [". ./client.sh; exec " + str(Path(sys.executable).parent / "l2dm") + ' "$@"', "sh"]
        done = subprocess.run(
            ["sh", "-c", *line, *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,  # errors are told by pytest, whatever ends the test
            text=True,
            timeout=BUSY_SECONDS,
        )
        assert done.returncode == 0
        return done.stdout

    def champion(self, *flags: str) -> int | None:
        (line,) = json.loads(self.l2dm("status", "--line", "pets", "--json", *flags))["lines"]
        found: int | None = line["champion"]
        return found

    def kinds(self) -> list[str]:
        """Of everything that was recorded."""
        events = json.loads(self.l2dm("history", "--line", "pets", "--json"))["events"]
        return [one["kind"] for one in events]

    def address(self, variable: str) -> str:
        return f"http://127.0.0.1:{self.environment[variable]}"


def foreign_images() -> dict[str, str]:
    """What `make up` has to be told about the images that are not ours: nothing, or stand-ins."""
    services = yaml.safe_load((LOCAL / "compose.yaml").read_text())["services"]
    stand_ins = {}
    for service in ("s3", "postgres"):
        named = re.fullmatch(r"\$\{(\w+):-(.+)\}", services[service]["image"])
        assert named is not None
        pulled = subprocess.run([client(), "pull", "-q", named[2]], capture_output=True)
        if pulled.returncode != 0:
            stand_ins[named[1]] = stand_in(service)
    versioned = {"L2DM_VERSIONED": "no"} if "L2DM_S3_IMAGE" in stand_ins else {}  # it is a radosgw
    return stand_ins | versioned


def stand_in(service: str) -> str:
    name = f"l2dm-stand-in-{service}"
    began = time.monotonic()
    arguments = ("--build-arg", f"BASE={BASE}", "--target", service, "--tag", name)
    docker("build", "--quiet", "--network=host", *arguments, str(STAND_INS))
    print(f"{name} built in {time.monotonic() - began:.0f} s")
    return name


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    found = subprocess.run(
        ["sh", "-c", ". ./compose.sh"], cwd=LOCAL, capture_output=True, text=True
    )
    if found.returncode != 0:
        pytest.skip(f"NOT TESTED, make up was not run: {found.stderr}")
    folder = tmp_path_factory.mktemp("team")
    ignored = shutil.ignore_patterns(".env", "client.sh")
    shutil.copytree(LOCAL, folder / "local", ignore=ignored)
    ports = ("L2DM_S3_PORT", "L2DM_MLFLOW_PORT", "L2DM_DISPATCHER_PORT")
    kept = {name: value for name, value in os.environ.items() if "L2DM" not in name}
    given = {
        **{name: str(free_port()) for name in ports},
        **foreign_images(),
        "L2DM_DISPATCH": " ".join(f"--set {one}" for one in LIGHT),
        "L2DM_SCRATCH": str(folder / "scratch"),  # of the person
        "OMP_NUM_THREADS": "1",
    }
    stack = Stack(folder / "local", kept | given)
    try:
        began = time.monotonic()
        stack.script("up.sh")
        print(f"make up: {time.monotonic() - began:.0f} s")
        yield stack
    finally:
        stack.script("down.sh", VOLUMES="--volumes")


def container(service: str) -> str:
    label = f"label=com.docker.compose.service={service}"
    return docker("ps", "--all", "--quiet", "--filter", label).strip()


def health(service: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container(service)).strip()


def wait_until_healthy() -> None:
    until = time.monotonic() + START_SECONDS
    while (found := {name: health(name) for name in SERVERS}) != dict.fromkeys(SERVERS, "healthy"):
        assert time.monotonic() < until, found
        time.sleep(1)


def test_an_upload_becomes_the_champion(stack: Stack, tmp_path: Path) -> None:
    for number, picture in enumerate(photos(identity(TUNING_SEEDS[0], "dog"), 3, seed=0)):
        picture.save(tmp_path / f"{number}.png")
    concept = ("--line", "pets", "--concept", "rex", "--class-noun", "dog")
    stack.l2dm("submit", str(tmp_path), *concept)
    began = time.monotonic()
    while (kinds := stack.kinds())[-1] != "ended":
        assert time.monotonic() < began + BUSY_SECONDS, docker("logs", container("dispatcher"))
        time.sleep(5)  # a look is a process of half a second
    print(f"learned in the stack: {time.monotonic() - began:.0f} s")
    assert kinds == ["submitted", "started", "begun", "promotion", "ended"]
    assert stack.champion() == 1
    check = ("check", "--line", "pets", *(part for one in LIGHT for part in ("--set", one)))
    assert "version 1 is healthy" in stack.l2dm(*check)  # its files reach a person's machine


def test_ports_are_on_loopback_only_and_strangers_are_refused(stack: Stack) -> None:
    hosts = []
    for service in SERVERS:
        ports = docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", container(service))
        bound = [one for ports in json.loads(ports).values() for one in ports or ()]
        hosts += [one["HostIp"] for one in bound]
    assert hosts == ["127.0.0.1"] * 3
    path = "/api/2.0/mlflow/experiments/search?max_results=5"
    for request, code in (
        (stack.address("L2DM_MLFLOW_PORT") + path, 401),
        (stack.address("L2DM_S3_PORT") + "/l2dm", 403),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        refused.value.close()
        assert refused.value.code == code


def test_servers_that_are_killed_come_back_with_everything(stack: Stack) -> None:
    for service in SERVERS:
        process = docker("inspect", "--format", "{{.State.Pid}}", container(service))
        os.kill(int(process), signal.SIGKILL)
    began = time.monotonic()
    time.sleep(5)  # until the engine has seen it
    wait_until_healthy()
    print(f"all four killed, healthy again: {time.monotonic() - began:.0f} s")
    assert stack.champion("--refresh") == 1


def test_down_leaves_nothing_running_and_up_finds_the_champion(
    stack: Stack, tmp_path: Path
) -> None:
    stack.script("down.sh")
    project = ("--filter", "label=com.docker.compose.project=l2dm", "--quiet")
    assert docker("ps", "--all", *project) == docker("network", "ls", *project) == ""
    stack.script("up.sh")
    assert stack.champion("--refresh") == 1
    drawing = ("--line", "pets", "-n", "1", "--out", str(tmp_path), "--set", "sampling.steps=2")
    stack.l2dm("generate", "a photo of a <rex> dog", *drawing)
    assert len(list(tmp_path.glob("*.png"))) == 1
