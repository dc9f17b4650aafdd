"""The processes of `benchmarks.chaos`: a dispatcher, and the runs that it starts.

A dispatcher is the real one with its real `LocalRuns`, except that a run's process is forked from a
server that has mlflow loaded (or 200 uploads would spend ten minutes importing it), and that its
steps are fast ones. Every dispatcher plays a machine of its own: another scratch folder, and no
process of another one is known to be dead, so that only an expired lease frees a line.
"""

import json
import logging
import multiprocessing
import os
import random
import sys
import time
import uuid
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from fast_runs import keep_contracts

from benchmarks import ROOT
from components.services import leases, watch
from components.services.events import Inbox
from components.services.home import Home
from components.services.journal import Failure
from components.services.mlflow_store import MlflowRegistry
from components.services.registry import FolderRegistry, Registry
from components.services.wakeups import HttpWakeups, SqsWakeups
from l2dm.errors import L2dmError
from pipelines.dispatch import Dispatcher, Policy, Settings
from pipelines.follow import follow
from pipelines.runs import Child, LocalRuns, execute
from pipelines.submit import Job, RunFailed

ECHO = ROOT / "tests" / "components" / "echo_model.py"
LEASE_SECONDS = 8.0
ATTEMPTS = 1000  # whoever is killed every few seconds did not fail


@dataclass(frozen=True)
class Role:
    """What a dispatcher process is told. folder: scratch of its machine; skew: of its clock, s.

    registry: folder of one without a server; "" is MLflow. queue: URL; "" is the webhook.
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
        places = (str(folder), self._release, self._registry)
        arguments = (places, os.getpid(), leases._process_space())
        process = self._fork.Process(target=run_process, args=arguments, daemon=False)
        process.start()
        return Forked(process)


def run_process(places: tuple[str, str, str], dispatcher: int, space: str) -> None:
    """The process of one run. places: its folder, the release, the registry."""
    folder, release, registry = places
    os.setsid()
    output = os.open(f"{folder}/output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ[watch.VARIABLE] = str(dispatcher)
    Path(folder, "pid").write_text(str(os.getpid()))
    play_a_machine(space)
    warnings.simplefilter("ignore")  # mlflow's
    watch.follow_learner()
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
        if job.concept.startswith("bad"):
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
    runs = FastLocalRuns(home, role.release, role.registry)
    policy = Policy(attempts=ATTEMPTS, backoff=0.5, parallel=role.parallel)
    dispatcher = Dispatcher(
        home,
        runs,
        lambda: registry_of(home, role.registry),
        Settings("pocket", "{}"),
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
    role = Role(**json.loads(Path(sys.argv[1]).read_text()))
    play_a_machine(f"machine of {os.getpid()}")
    dispatch(role, lambda: time.time() + role.skew)
