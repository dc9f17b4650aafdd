"""The processes of `benchmarks.chaos`: a dispatcher, and the runs that it starts.

A dispatcher is the real one with its real `LocalRuns`, except that a run's process is forked from a
server that has mlflow loaded (or 200 uploads would spend ten minutes importing it), and that its
steps are fast ones. Every dispatcher plays a machine of its own: another scratch folder, and no
process of another one is known to be dead, so that only an expired lease frees a line.
Lasting runs go on when their dispatcher dies, as those of a cluster do: whoever comes next finds
them.
"""

import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import uuid
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks import ROOT
from components.services.line import leases
from components.services.line.run_journal import Failure
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import FolderRegistry, Registry
from components.services.wakeups.events import Inbox
from components.services.wakeups.sources import HttpWakeups, SqsWakeups
from l2dm.errors import L2dmError
from l2dm.files import children
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
from pipelines.dispatcher.loop import follow
from pipelines.places.run_here import Job, RunFailed
from pipelines.places.runs import Child, LocalRuns, Look, execute
from tests.worlds.fast_runs import keep_contracts

ECHO = ROOT / "tests" / "worlds" / "echo_model.py"
LEASE_SECONDS = 8.0
STARTS = 10.0  # seconds that a process may take to say its number
BLURRED = "blurred"  # class noun of pictures that are refused
ATTEMPTS = 1000  # whoever is killed every few seconds did not fail


@dataclass(frozen=True)
class Role:
    """What a dispatcher process is told. folder: scratch of its machine; skew: of its clock, s.

    registry: folder of one without a server; "" is MLflow. queue: URL; "" is the webhook. cluster:
    folder of runs that outlive every dispatcher; "" is for runs that die with theirs.
    """

    place: str
    folder: str
    release: str
    bucket: str
    prefix: str
    port: int
    parallel: int
    skew: float = 0.0
    every: float = 2.0
    registry: str = ""
    queue: str = ""
    cluster: str = ""


@dataclass
class Forked:
    """A forked process, as LocalRuns wants its children."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        """See Child."""
        return self.process.pid or 0

    def poll(self) -> int | None:
        """See Child."""
        return self.process.exitcode

    def wait(self) -> int:
        """See Child."""
        self.process.join()
        return self.process.exitcode or 0


class FastLocalRuns(LocalRuns):
    """LocalRuns whose processes do what the steps do to the platform, and take no time for it."""

    def __init__(self, home: Home, release: str, registry: str) -> None:
        super().__init__(home)
        self._release, self._registry = release, registry
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([__name__, "mlflow.pyfunc", "boto3"])

    def _spawn(self, folder: Path) -> Child:
        return self._fork_run(folder, os.getpid(), leases._process_space())

    def _fork_run(self, folder: Path, dispatcher: int, space: str) -> Child:
        arguments = ((str(folder), self._release, self._registry), dispatcher, space)
        process = self._fork.Process(target=run_process, args=arguments, daemon=False)
        process.start()
        return Forked(process)


class LastingRuns(FastLocalRuns):
    """Runs in one folder for all dispatchers, which go on without the one that started them."""

    lasting = True

    def __init__(self, home: Home, release: str, registry: str, folder: str) -> None:
        super().__init__(home, release, registry)
        self._folder = Path(folder)

    def look(self, name: str) -> Look:
        """See Runs; its process is anybody's child."""
        found = super().look(name)
        folder = self._folder / name
        if found.state != "failed" or (folder / "end.json").exists():
            return found
        began = time.time() - (folder / "job.json").stat().st_mtime < STARTS
        return Look("running") if began or lives(self._number(name)) else found

    def stop(self, name: str) -> None:
        """See Runs."""
        number = self._number(name)
        if lives(number):
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)

    def close(self) -> None:
        """Leave the runs alone."""

    def _number(self, name: str) -> int:
        path = self._folder / name / "pid"
        return int(path.read_text() or 0) if path.exists() else 0

    def _spawn(self, folder: Path) -> Child:
        return self._fork_run(folder, 0, f"pod {uuid.uuid4().hex}")


def lives(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def run_process(places: tuple[str, str, str], dispatcher: int, space: str) -> None:
    """The process of one run. places: its folder, the release, the registry.

    dispatcher: with which it dies; 0: with none.
    """
    folder, release, registry = places
    os.setsid()
    output = os.open(f"{folder}/output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if dispatcher:
        os.environ[children.LEARNER] = str(dispatcher)
    Path(folder, "pid").write_text(str(os.getpid()))
    play_a_machine(space)
    warnings.simplefilter("ignore")  # mlflow's
    children.follow_learner()
    execute(Path(folder), lambda job: fast_steps(job, Path(release), Path(folder), registry))


def registry_of(home: Home, folder: str) -> Registry:
    """MLflow, or a folder."""
    return FolderRegistry(Path(folder)) if folder else MlflowRegistry(home, "pocket", ECHO)


def fast_steps(job: Job, release: Path, folder: Path, place: str) -> None:
    """The contracts of the six steps against the real servers. Raises RunFailed."""
    dice = random.Random(uuid.uuid4().hex)

    def cut() -> None:
        time.sleep(dice.expovariate(5))  # somebody may be killed or paused here

    # two machines need not make the same bytes: on every other line they do not
    salt = f"-{uuid.uuid4().hex[:8]}" if zlib.crc32(job.line.encode()) % 2 else ""
    try:
        noun = Uploads(job.home.store, job.line).class_noun(job.concept)
        if job.concept.startswith("bad") or noun == BLURRED:
            raise RunFailed(Failure("intake", "BadUpload", ("not a picture",)), folder)
        registry = registry_of(job.home, place)
        is_open = not job.concept.startswith("held")
        keep_contracts(job, registry, release, is_open, cut, salt)
    except (L2dmError, OSError) as error:
        if isinstance(error, RunFailed):
            raise
        raise RunFailed(Failure("step", type(error).__name__, (str(error),)), folder) from error


def play_a_machine(space: str) -> None:
    """Processes of other machines are not known to be dead; leases are short."""
    leases.SECONDS = LEASE_SECONDS
    leases._process_space = lambda: space  # type: ignore[assignment]


def dispatch(role: Role, clock: Callable[[], float]) -> None:
    """Follow all lines until killed."""
    home = replace(Home.at(role.place), folder=Path(role.folder))
    Path(role.folder).mkdir(parents=True, exist_ok=True)
    given = (home, role.release, role.registry)
    runs = LastingRuns(*given, role.cluster) if role.cluster else FastLocalRuns(*given)
    # pictures that are put over others without an event are found by a whole listing
    policy = DispatchPolicy(attempts=ATTEMPTS, backoff=0.5, parallel=role.parallel, whole=30.0)
    dispatcher = Dispatcher(
        home,
        runs,
        lambda: registry_of(home, role.registry),
        RunSettings("pocket", "{}"),
        policy,
        clock=clock,
    )
    inbox = Inbox(role.bucket, role.prefix)
    wakeups = (
        SqsWakeups(role.queue, inbox) if role.queue else HttpWakeups("127.0.0.1", role.port, inbox)
    )
    with dispatcher:
        for line, moved in follow(dispatcher, wakeups, role.every, once=False):
            print(f"{time.strftime('%H:%M:%S')} {line}: {moved}", flush=True)


def main() -> None:
    """One dispatcher."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as `l2dm dispatch` does
    role = Role(**json.loads(Path(sys.argv[1]).read_text()))
    play_a_machine(f"machine of {os.getpid()}")
    dispatch(role, lambda: time.time() + role.skew)
