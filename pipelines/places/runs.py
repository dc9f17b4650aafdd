"""Where a task's run executes: started under a name, looked at under that name.

`LocalRuns` gives every run a process of its own on this machine; `DockerRuns` (containers.py) does
so too, and each step a container; `ClusterRuns` (cluster.py) leaves runs to Kubeflow Pipelines. A
name is started once: whoever dies between writing the name down and starting it may start it again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from components.services.line.run_journal import Failure
from components.services.store.home import Home
from l2dm.errors import L2dmError, words
from l2dm.files import children
from l2dm.files.children import JOB
from pipelines.places.run_here import Job, RunFailed, run_local

END = "end.json"  # in a run's folder: how it ended
KEPT = 30 * 24 * 3600.0  # seconds for which the output of a run can be read
NEVER = "NotStarted"  # kind of a failure: a run whose name was recorded is not there
LONGEST = 50  # letters of a line's or a concept's name in that of a run; servers keep 191
RunState = Literal["absent", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class Look:
    """What a run does now. failure: what its step said, if it could; text: for people."""

    state: RunState
    failure: Failure | None = None
    text: str = ""


class Runs(Protocol):
    """What the dispatcher asks of a place where runs execute.

    lasting: whether runs go on when the process that started them ends. patience: seconds that a
    run may still be there after it recorded its end.
    """

    @property
    def lasting(self) -> bool:
        """See above."""
        ...

    @property
    def patience(self) -> float:
        """See above."""
        ...

    def start(self, name: str, job: Job) -> None:
        """Start a run; nothing happens when one of this name was started before."""
        ...

    def look(self, name: str) -> Look:
        """What became of it so far."""
        ...

    def stop(self, name: str) -> None:
        """End it; no error when it is not running."""
        ...


class Starter:
    """Starts runs of a place, and keeps of each line why its last one could not be started."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._refusals: dict[str, tuple[str, str]] = {}  # by line: name of the run, why

    def start(self, name: str, job: Job) -> None:
        """See Runs; what it raises is passed on."""
        try:
            self._runs.start(name, job)
        except (L2dmError, OSError) as error:
            self._refusals[job.line] = (name, words(error))
            raise

    def why_absent(self, line: str, name: str) -> Failure:
        """Of a run whose name was recorded: it was refused, or we died before its start."""
        refused, error = self._refusals.get(line, ("", ""))
        why = f"it was never started: {error}" if refused == name else "it was never started"
        return Failure("start", NEVER, (why,))


class Child(Protocol):
    """A process that we started, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its number, and that of its session."""
        ...

    def poll(self) -> int | None:
        """Its exit code; None while it lives."""
        ...

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        ...


class LocalRuns:
    """Runs as processes of this machine. They end when the process that started them dies.

    program: module and arguments of a run's process, its folder comes behind. environment: of it,
    over that of this process.
    """

    lasting = False
    patience = 60.0

    def __init__(
        self,
        home: Home,
        program: Sequence[str] = ("pipelines.places.runs",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._home, self._program, self._environment = home, program, environment or {}
        self._folder = home.folder / "dispatched"
        self._children: dict[str, Child] = {}
        _prune(self._folder)

    def start(self, name: str, job: Job) -> None:
        """See Runs."""
        if self.look(name).state != "absent":
            return
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        children.write(folder / JOB, _facts(job))
        self._children[name] = self._spawn(folder)

    def look(self, name: str) -> Look:
        """See Runs. A run that ended without saying how was killed."""
        folder = self._folder / name
        child = self._children.get(name)
        alive = child is not None and child.poll() is None
        if (folder / END).exists():
            if child is not None:
                child.wait()  # it has said all it had to say
            return _read_end(folder)
        if alive:
            return Look("running")
        if not (folder / JOB).exists():
            return Look("absent")
        return Look("failed", text="its process was ended from outside")

    def stop(self, name: str) -> None:
        """See Runs."""
        child = self._children.pop(name, None)
        if child is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def close(self) -> None:
        """End what still runs: nothing watches it any more."""
        for name in tuple(self._children):
            self.stop(name)

    def _spawn(self, folder: Path) -> Child:
        """The process of the job in `folder`, which leads a session of its own."""
        with open(folder / "output.txt", "ab") as output:
            return subprocess.Popen(
                children.command(*self._program, folder),
                stdout=output,
                stderr=output,
                env=children.environment(**self._environment),
                start_new_session=True,
            )


def run_name(line: str, task: int, concept: str, upload: str, attempt: int) -> str:
    """A name that says what it is and is the same after a crash."""
    end = f"{upload[:8]}-{attempt}"  # tells names apart that are cut
    return f"{line[:LONGEST]}-{task:04d}-{concept[:LONGEST]}-{end}"


def check_name(line: str, seed: int, attempt: int) -> str:
    """The same for a check."""
    return f"{line}-check-{seed}-{attempt}"


def _facts(job: Job) -> Mapping[str, Any]:
    return {
        "line": job.line,
        "concept": job.concept,
        "base": job.base,
        "spec": job.spec,
        "home": job.home.place,
        "fence": job.fence,
        "seed": job.seed,
    }


def _read_end(folder: Path) -> Look:
    end = children.read(folder / END)
    if end["state"] == "succeeded":
        return Look("succeeded")
    told = end["failure"]
    failure = Failure(told["step"], told["kind"], tuple(told["problems"])) if told else None
    return Look("failed", failure, end["text"])


def _prune(runs: Path) -> None:
    """Remove what runs of long ago left: a job, its output, how it ended."""
    for folder in runs.glob("*/"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > KEPT:
                shutil.rmtree(folder)


def execute(folder: Path, run: Callable[[Job], object]) -> None:
    """Run the job that `start` left in a folder, and leave there how it ended."""
    facts = children.read(folder / JOB)
    home = Home.at(facts.pop("home"))
    job = Job(**facts, home=home)
    try:
        run(job)
    except RunFailed as error:
        failure = asdict(error.failure) if error.failure else None
        end = {"state": "failed", "failure": failure, "text": str(error)}
    except (L2dmError, OSError) as error:  # the store is down, say: no step can tell it
        failure = asdict(Failure("run", type(error).__name__, (words(error),)))
        end = {"state": "failed", "failure": failure, "text": words(error)}
    else:
        end = {"state": "succeeded", "failure": None, "text": ""}
    children.write(folder / END, end)


if __name__ == "__main__":
    children.follow_learner()
    execute(Path(sys.argv[1]), lambda job: run_local(job, lambda progress: None))
