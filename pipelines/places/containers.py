"""Runs whose steps are containers of this machine: kfp's DockerRunner on any Docker engine.

Each run has a process of its own, as a local one, and its containers carry the run's label: they do
not end with the process that started them, so whoever ends the run removes them as well.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from components.services.store.home import SCRATCH, Home
from l2dm.bases.folder import source_of
from l2dm.errors import BadSettings, PlatformError
from l2dm.files import children
from l2dm.files.manifest import write_text
from pipelines.places.run_here import Engine, Job, run_local
from pipelines.places.runs import LocalRuns, Look, execute
from pipelines.places.settings import NOUN, Settings, parse, size, to_json

LABEL = "l2dm.run"
TRACKING = "MLFLOW_TRACKING_URI"
HOST = "DOCKER_HOST"


class DockerRuns:
    """Runs as processes of this machine, their steps as containers."""

    lasting, patience = LocalRuns.lasting, LocalRuns.patience

    def __init__(self, home: Home, settings: Settings) -> None:
        self._folder, self._settings = home.folder / "dispatched", settings
        text = to_json(settings)
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"settings-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        write_text(file, text)
        environment = {HOST: settings.docker.socket} if settings.docker.socket else {}
        self._runs = LocalRuns(home, ("pipelines.places.containers", str(file)), environment)
        self._started: set[str] = set()

    def prepare(self) -> None:
        """See that the engine answers and has the image. Raises PlatformError."""
        import docker

        image = image_of(self._settings)
        with engine(self._settings) as client:
            client.ping()
            try:
                client.images.get(image)
            except docker.errors.ImageNotFound:
                client.images.pull(image)

    def start(self, name: str, job: Job) -> None:
        """See Runs."""
        self._started.add(name)
        self._runs.start(name, job)

    def look(self, name: str) -> Look:
        """See Runs. What a run that was killed left behind is removed first."""
        found = self._runs.look(name)
        if found.state == "failed":
            self._remove(name)
        return found

    def stop(self, name: str) -> None:
        """See Runs."""
        self._runs.stop(name)
        self._remove(name)

    def close(self) -> None:
        """End what still runs: nothing watches it any more."""
        self._runs.close()
        for name in tuple(self._started):
            self._remove(name)

    def _remove(self, name: str) -> None:
        remove(self._settings, self._folder / name)
        self._started.discard(name)


def image_of(settings: Settings) -> str:
    """The image of every step on this machine."""
    return settings.docker.image or settings.image


def require_docker(home: Home, settings: Settings) -> None:
    """Raise BadSettings with everything that keeps steps from running as containers here."""
    problems = list(_problems(home, settings))
    if problems:
        raise BadSettings(problems)


@contextmanager
def engine(settings: Settings) -> Iterator[Any]:
    """The engine's client. Raises PlatformError when it does not answer or refuses."""
    import docker

    socket = settings.docker.socket
    try:
        client = docker.DockerClient(base_url=socket) if socket else docker.from_env()
        with closing(client):
            yield client
    except (docker.errors.DockerException, OSError) as error:  # OSError: requests' own
        where = socket or os.environ.get(HOST, "the default socket")
        raise PlatformError(
            f"expected a container engine at {where} that does what it is asked, found: {error}; "
            f"start it, let this user reach its socket, or set docker.socket of {NOUN}"
        ) from error


def remove(settings: Settings, folder: Path) -> None:
    """Remove the containers of a run, whatever they do."""
    import docker

    with engine(settings) as client:
        mine = {"label": f"{LABEL}={folder}"}
        for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
            with suppress(docker.errors.NotFound):
                container.remove(force=True)


def container_arguments(settings: Settings, job: Job, folder: Path) -> dict[str, Any]:
    """How every container of a run is started, in docker's own words."""
    from docker.types import DeviceRequest

    chosen = settings.docker
    arguments: dict[str, Any] = {
        "user": user_of(settings),
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,size={size(chosen.tmp)},mode=1777"},
        "working_dir": "/tmp",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "network_mode": chosen.network,
        "pids_limit": chosen.processes,
        "shm_size": size(chosen.shm),
        "labels": {LABEL: str(folder)},
        "mounts": list(_mounts(job)),
        "environment": _environment(settings, job.home),
    }
    if chosen.memory:
        arguments["mem_limit"] = size(chosen.memory)
    if chosen.cpus:
        arguments["nano_cpus"] = int(chosen.cpus * 1e9)
    if chosen.gpus:
        arguments["device_requests"] = [DeviceRequest(count=chosen.gpus, capabilities=[["gpu"]])]
    return arguments


def user_of(settings: Settings) -> str:
    """Who the steps run as: files in the state folder stay those of whoever dispatches."""
    return settings.docker.user or f"{os.getuid()}:{os.getgid()}"


def _mounts(job: Job) -> Iterator[Any]:
    """The state folder, and a base that is a folder, under the paths that they have here."""
    from docker.types import Mount

    state = str(job.home.folder)
    yield Mount(state, state, type="bind")
    if source_of(job.base) == "folder":
        yield Mount(job.base, job.base, type="bind", read_only=True)


def _environment(settings: Settings, home: Home) -> Mapping[str, str]:
    """Over that of the YAML; values of this process go no further than the engine."""
    forwarded = {name: os.environ[name] for name in settings.docker.forward}
    scratch = {SCRATCH: str(home.folder)} if home.bucket else {}
    return {"HOME": "/tmp", **children.QUIET, **children.FOUND, **forwarded, **scratch}


def _problems(home: Home, settings: Settings) -> Iterator[str]:
    chosen = settings.docker
    if not image_of(settings):
        yield f"{NOUN} docker.image: expected the image of every step, found nothing"
    for name in chosen.forward:
        if name not in os.environ:
            yield f"{NOUN} docker.forward: expected {name} to be set, found it is not; set it"
    if home.bucket and TRACKING not in {*settings.environment, *chosen.forward}:
        yield (
            f"{NOUN} environment: expected {TRACKING}, because the state in {home.bucket} is "
            "shared, found nothing"
        )
    yield from _user_problems(home, settings)


def _user_problems(home: Home, settings: Settings) -> Iterator[str]:
    """Steps and dispatcher write the same files, unless the state is a bucket."""
    me, at = os.getuid(), f"{NOUN} docker.user"
    if not settings.docker.user and me == 0:
        yield (
            f"{at}: expected steps that do not run as root, found that root dispatches and no user "
            'is named; dispatch as another user, or name one as "uid:gid"'
        )
    elif _uid(settings) not in (me, 0) and not (home.bucket and me == 0):  # 0: rootless engines
        yield (
            f"{at}: expected user {me}, who dispatches, because steps write the same files in "
            f"{home.folder}, found {_uid(settings)}; dispatch as that user, or keep the state in "
            "a bucket"
        )


def _uid(settings: Settings) -> int:
    return int(user_of(settings).split(":")[0])


def hand_over(settings: Settings, job: Job) -> None:
    """Give the run's folders to the user of the steps, where root dispatches for another one."""
    if os.getuid() != 0 or _uid(settings) == 0:
        return
    uid, gid = map(int, user_of(settings).split(":"))
    inside = job.folder.relative_to(job.home.folder)
    for path in (job.home.folder / part for part in (*inside.parents, inside, inside / "pipeline")):
        os.chown(path, uid, gid)


@contextmanager
def honest_containers() -> Iterator[None]:
    """While it lasts, a failed container is a failed task.

    kfp's own way has the engine remove a container as it ends, and takes one that is gone for a
    success (kubeflow/pipelines#13332). Here it stays until its status was read.
    """
    from kfp.local import docker_task_handler

    before = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = run_container
    try:
        yield
    finally:
        docker_task_handler.run_docker_container = before


def run_container(
    client: Any, image: str, command: list[str], volumes: dict[str, Any], **more: Any
) -> int:
    """Run one container to its end, its output to standard output; returns its exit status."""
    container = client.containers.run(image, command, detach=True, volumes=volumes, **more)
    try:
        for line in container.logs(stream=True, follow=True):
            sys.stdout.write(line.decode(errors="replace"))
        status = int(container.wait()["StatusCode"])
        container.reload()
        if container.attrs["State"].get("OOMKilled"):
            sys.stdout.write("the container ran out of memory (docker.memory)\n")
        return status
    finally:
        container.remove(force=True)


def main() -> None:
    """The process of one run: the settings' file and the run's folder are its arguments."""
    settings, folder = parse(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])
    children.follow_learner(before=lambda: remove(settings, folder))

    def runner(job: Job) -> Any:
        from kfp import local

        hand_over(settings, job)
        return local.DockerRunner(**container_arguments(settings, job, folder))

    with honest_containers():
        engine = Engine(runner, settings, image_of(settings))
        execute(folder, lambda job: run_local(job, lambda progress: None, engine))


if __name__ == "__main__":
    main()
