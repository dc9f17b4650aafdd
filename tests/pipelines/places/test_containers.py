"""Steps as containers: how they are started, and on a real engine what becomes of them."""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from components.services.store.home import Home
from l2dm.errors import BadSettings, PlatformError
from l2dm.sections import replaced
from pipelines.places.containers import (
    LABEL,
    DockerRuns,
    container_arguments,
    honest_containers,
    require_docker,
    run_container,
)
from pipelines.places.run_here import Job
from pipelines.places.runs import Look
from pipelines.places.settings import Settings, parse
from tests.worlds.container_engine import shell_image

# docker leaves sockets to the garbage collector: of streams, and of engines that do not answer
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
ME = f"{os.getuid()}:{os.getgid()}"
NAME = "pets-0001-rex-0a1b2c3d-1"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """So that such a socket is of the test that left it."""
    yield
    gc.collect()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home.at(tmp_path / "home")


def job_of(home: Home, base: str = "pocket") -> Job:
    return Job("pets", "rex", base, "{}", home, 7)


def settings_of(**keys: Any) -> Settings:
    return parse({"docker": {"user": ME, "network": "none", **keys}})


def problems(home: Home, settings: Settings) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        require_docker(home, settings)
    return list(caught.value.problems)


def test_a_container_gets_what_the_settings_say_and_no_more(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "a secret")
    (tmp_path / "base").mkdir()
    settings = settings_of(
        cpus=1.5, memory="2Gi", shm="64Mi", tmp="1Gi", processes=99, gpus=2, forward=["OURS"]
    )
    job = job_of(home, str(tmp_path / "base"))
    given = container_arguments(settings, job, tmp_path / "run")
    assert (given["user"], given["read_only"], given["cap_drop"]) == (ME, True, ["ALL"])
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["tmpfs"] == {"/tmp": f"rw,nosuid,nodev,size={2**30},mode=1777"}
    assert (given["mem_limit"], given["nano_cpus"], given["shm_size"], given["pids_limit"]) == (
        *(2**31, 1_500_000_000, 2**26, 99),
    )
    assert given["network_mode"] == "none"
    assert given["labels"] == {LABEL: str(tmp_path / "run")}
    state, base = given["mounts"]
    assert (state["Source"], state["Target"], state["ReadOnly"]) == (
        *(str(home.folder), str(home.folder), False),
    )
    assert (base["Target"], base["ReadOnly"]) == (job.base, True)
    assert given["environment"]["OURS"] == "a secret"
    assert given["environment"]["HOME"] == "/tmp"
    assert "L2DM_SCRATCH" not in given["environment"]
    assert given["device_requests"][0]["Count"] == 2
    none = container_arguments(settings_of(), job, tmp_path)
    assert not {"mem_limit", "nano_cpus", "device_requests"} & set(none)


def test_a_folder_called_pocket_is_not_taken_for_the_base_that_ships(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    (state,) = container_arguments(settings_of(), job_of(home), tmp_path / "run")["mounts"]
    assert state["Source"] == str(home.folder)


def test_beside_a_bucket_the_scratch_folder_of_this_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path))
    job = job_of(Home.at("s3://bucket/l2dm"))
    given = container_arguments(settings_of(), job, tmp_path / "run")
    assert given["environment"]["L2DM_SCRATCH"] == str(tmp_path)


def test_what_keeps_steps_from_running_here_is_listed_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    image, forward = problems(home, settings_of(forward=["NOT_SET"]))
    assert "docker.image: expected the image" in image
    assert "docker.forward: expected NOT_SET to be set" in forward
    bucket = Home.at("s3://bucket/l2dm")
    (tracking,) = problems(bucket, settings_of(image="l2dm:cpu"))
    assert "MLFLOW_TRACKING_URI" in tracking
    environment = {"MLFLOW_TRACKING_URI": "http://mlflow"}
    require_docker(bucket, replaced(settings_of(image="l2dm:cpu"), environment=environment))


def test_steps_run_as_whoever_dispatches_but_never_as_root_by_chance(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(user: str, me: int, where: Home = home) -> list[str]:
        monkeypatch.setattr(os, "getuid", lambda: me)
        settings = parse(
            {
                "docker": {"image": "l2dm:cpu", "user": user},
                "environment": {"MLFLOW_TRACKING_URI": "http://mlflow"},
            }
        )
        try:
            require_docker(where, settings)
        except BadSettings as error:
            return list(error.problems)
        return []

    bucket = Home.at("s3://bucket/l2dm")
    assert told("", 1000) == told("1000:1000", 1000) == told("0:0", 1000) == []
    assert "found that root dispatches and no user is named" in told("", 0)[0]
    assert "expected user 1000, who dispatches" in told("2000:2000", 1000)[0]
    assert "expected user 0, who dispatches" in told("2000:2000", 0)[0]  # the state is a folder
    assert told("2000:2000", 0, bucket) == []
    assert "expected user 1000" in told("2000:2000", 1000, bucket)[0]


class GoneContainer:
    """A container of an engine that forgets it as soon as it ends (podman does)."""

    def __init__(self, kept: bool) -> None:
        self.kept, self.removed = kept, False
        self.attrs = {"State": {"OOMKilled": True}}

    def logs(self, **_: Any) -> Iterator[bytes]:
        yield b"at work\n"

    def wait(self) -> dict[str, int]:
        if not self.kept:
            raise docker.errors.NotFound("no such container")
        return {"StatusCode": 137}

    def reload(self) -> None:
        pass

    def remove(self, force: bool) -> None:
        self.removed = force


class GoneEngine:
    def __init__(self) -> None:
        self.containers = self.images = self
        self.made: list[GoneContainer] = []

    def list(self) -> list[Any]:
        return [type("Image", (), {"tags": ["x:latest"], "attrs": {"RepoDigests": []}})]

    def run(self, image: str, command: Any, *, auto_remove: bool = False, **_: Any) -> Any:
        self.made.append(GoneContainer(kept=not auto_remove))
        return self.made[-1]


def test_a_container_that_its_engine_forgot_is_no_success_while_we_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first half is kfp's own way: when it fails, kfp has mended it and ours may go."""
    from kfp.local import docker_task_handler as kfp

    arguments = {"image": "x", "command": ["false"], "volumes": {}}
    assert GoneEngine().run("x", None, auto_remove=True).kept is False
    with pytest.MonkeyPatch.context() as patch:
        engine = GoneEngine()
        patch.setattr(engine, "run", lambda image, command, **more: GoneContainer(kept=False))
        assert kfp.run_docker_container(engine, **arguments) == 0
    theirs, engine = kfp.run_docker_container, GoneEngine()
    with honest_containers():
        assert kfp.run_docker_container(engine, **arguments) == 137
    assert kfp.run_docker_container is theirs
    assert engine.made[0].removed
    assert "at work\nthe container ran out of memory" in capsys.readouterr().out


def test_an_engine_that_does_not_answer_is_told(home: Home, tmp_path: Path) -> None:
    runs = DockerRuns(home, settings_of(image="x", socket=f"unix://{tmp_path}/none"))
    with pytest.raises(PlatformError, match=r"container engine at unix://.*docker\.socket"):
        runs.prepare()


# --- on a real engine


def images_of(client: Any, tag: str, python: str) -> Iterator[str]:
    name = shell_image(client, tag, python)
    yield name
    client.images.remove(name, force=True)


@pytest.fixture(scope="module")
def shell(client: Any) -> Iterator[str]:
    """An image without any python: every step fails."""
    yield from images_of(client, "shell", "exit 3")


@pytest.fixture(scope="module")
def sleeper(client: Any) -> Iterator[str]:
    yield from images_of(client, "sleeper", "sleep 600")


@pytest.fixture(scope="module")
def liar(client: Any) -> Iterator[str]:
    """Every step ends well and leaves nothing."""
    yield from images_of(client, "liar", "exit 0")


def containers_of(client: Any, home: Home) -> list[Any]:
    label = f"{LABEL}={home.folder / 'dispatched' / NAME}"
    mine = {"label": label}
    found: list[Any] = client.containers.list(all=True, filters=mine, ignore_removed=True)
    return found


def until(true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def ended(runs: DockerRuns) -> Look:
    until(lambda: runs.look(NAME).state != "running")
    return runs.look(NAME)


def test_steps_write_to_the_state_and_tmp_and_nowhere_else(
    client: Any, shell: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base").chmod(0o777)
    job = job_of(home, str(tmp_path / "base"))
    user = "4242:4242"
    home.folder.chmod(0o777)
    settings = settings_of(user=user, tmp="1Mi", forward=["PATH"])
    given = container_arguments(settings, job, tmp_path / "run")
    given["environment"] = {**given["environment"], "PATH": "/bin"}
    writes = [f"touch {folder}/x 2>/dev/null && echo wrote {folder}" for folder in
              ("/", "/bin", "/tmp", home.folder, job.base)]  # fmt: skip
    script = "; ".join(["id -u", *writes, "cat /proc/self/status", "exit 7"])
    assert run_container(client, shell, ["sh", "-c", script], {}, **given) == 7
    told = capsys.readouterr().out
    assert told.startswith("4242\n")
    wrote = [line.removeprefix("wrote ") for line in told.splitlines() if line.startswith("wrote")]
    assert wrote == ["/tmp", str(home.folder)]
    assert "CapEff:\t0000000000000000" in told and "NoNewPrivs:\t1" in told
    assert client.containers.list(all=True, filters={"label": f"{LABEL}={tmp_path / 'run'}"}) == []


def test_a_failed_container_is_a_failed_run(client: Any, shell: str, home: Home) -> None:
    runs = DockerRuns(home, settings_of(image=shell))
    runs.prepare()
    runs.start(NAME, job_of(home))
    look = ended(runs)
    assert look.state == "failed"
    assert "a step that could not say why failed" in look.text
    assert containers_of(client, home) == []


def test_a_run_that_ends_well_without_its_outputs_failed(
    client: Any, liar: str, home: Home
) -> None:
    runs = DockerRuns(home, settings_of(image=liar))
    runs.start(NAME, job_of(home))
    assert ended(runs).state == "failed"


def test_a_stopped_run_leaves_no_container(client: Any, sleeper: str, home: Home) -> None:
    runs = DockerRuns(home, settings_of(image=sleeper))
    runs.start(NAME, job_of(home))
    until(lambda: [one.status for one in containers_of(client, home)] == ["running"])
    runs.stop(NAME)
    assert containers_of(client, home) == []
    assert runs.look(NAME).state == "failed"
    runs.stop(NAME)


@pytest.mark.parametrize("ending", ["close", "kill"])
def test_containers_end_with_the_dispatcher_that_started_them(
    client: Any, sleeper: str, home: Home, ending: str
) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from components.services.store.home import Home\n"
        "from pipelines.places.containers import DockerRuns\n"
        "from pipelines.places.settings import parse\n"
        "from pipelines.places.run_here import Job\n"
        "home, image, user, name = sys.argv[1:]\n"
        "where = Home.at(home)\n"
        "chosen = {'image': image, 'user': user, 'network': 'none'}\n"
        "runs = DockerRuns(where, parse({'docker': chosen}))\n"
        "runs.start(name, Job('pets', 'rex', 'pocket', '{}', where, 7))\n"
        "sys.stdin.read()\n"
        "runs.close()\n"
    )
    words = [str(home.folder), sleeper, ME, NAME]
    with subprocess.Popen([sys.executable, "-c", code, *words], stdin=subprocess.PIPE) as process:
        until(lambda: [one.status for one in containers_of(client, home)] == ["running"])
        if ending == "kill":
            process.kill()
        else:
            assert process.stdin is not None
            process.stdin.close()
        process.wait(30)
        until(lambda: containers_of(client, home) == [])


def test_what_a_killed_run_left_is_removed_when_it_is_looked_at(
    client: Any, sleeper: str, home: Home
) -> None:
    """Dispatcher and run were killed at once, so nobody was left to clean up."""
    folder = home.folder / "dispatched" / NAME
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    left = client.containers.run(
        sleeper, ["sleep", "600"], detach=True, labels={LABEL: str(folder)}, network_mode="none"
    )
    try:
        assert DockerRuns(home, settings_of(image=sleeper)).look(NAME).state == "failed"
        assert containers_of(client, home) == []
    finally:
        with suppress(docker.errors.NotFound):
            left.remove(force=True)
