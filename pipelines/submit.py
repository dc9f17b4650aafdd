"""Run the compiled pipeline on this machine: under one of kfp.local's runners.

What is compiled is what runs. The runner deletes its workspace folder after each pipeline, so none
is passed; it may report success without outputs, so the declared one is required; and it tells
only that a step failed, so the step's own error file is read.
"""

import contextlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.services import journal, watch
from components.services.home import Home
from components.services.journal import Cost, Failure, Progress
from l2dm.errors import StepFailed
from pipelines.compilation import compile_pipeline, quiet
from pipelines.settings import Settings

RUNNERS = re.compile(r"\d\d:\d\d:\d\d\.\d+ - [A-Z]+ - ")  # how kfp.local begins its lines
Listener = Callable[[Progress], None]
STEPS = ("intake", "generate_prior", "score_memory", "train", "evaluate", "promote")


@dataclass(frozen=True)
class Job:
    """One run of the pipeline: which concept's upload, with which base and spec (JSON).

    fence: number of the lease under which it runs.
    """

    line: str
    concept: str
    base: str
    spec: str
    home: Home
    fence: int

    @property
    def arguments(self) -> dict[str, str | int]:
        """The pipeline's parameters."""
        return {
            "line": self.line,
            "upload": self.concept,
            "base": self.base,
            "spec": self.spec,
            "home": self.home.place,
            "fence": self.fence,
        }

    @property
    def folder(self) -> Path:
        """Where the run leaves its log and doors on this machine."""
        return self.home.run(self.line, self.concept)

    @property
    def key(self) -> str:
        """Prefix of its costs and error in the store."""
        return self.home.run_key(self.line, self.concept)


@dataclass(frozen=True)
class Outcome:
    """A run that ended well: seconds on the wall, cost per step, folder of the release."""

    wall: float
    costs: Mapping[str, Cost]
    release: Path

    @property
    def overhead(self) -> float:
        """Seconds that the platform took: the wall minus the steps' own work."""
        return self.wall - sum(cost.seconds for cost in self.costs.values())


class RunFailed(StepFailed):
    """A run that ended without its outputs; `failure` is what the step said, if it could."""

    def __init__(self, failure: Failure | None, log: Path) -> None:
        self.failure = failure
        where = f"step {failure.step}" if failure else "a step that could not say why"
        problems = "; ".join(failure.problems) if failure else _last_words(log)
        super().__init__(
            f"expected the pipeline to end with a release, found {where} failed: {problems} "
            f"(log: {log}); run `l2dm learn` again to continue where it stopped"
        )


def _last_words(log: Path) -> str:
    """What the log of a step that wrote no error ends with, without the runner's own lines."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    own = [line for line in lines if line.strip("- ") and not RUNNERS.match(line)]
    heard = [line for line in own if journal.heard(line) is None]
    ends = f", its last words: {heard[-1].strip()[:300]}" if heard else ""
    return f"its process was ended from outside{ends}"


def _subprocesses(job: Job) -> Any:
    from kfp import local

    return local.SubprocessRunner(use_venv=False)


@dataclass(frozen=True)
class Engine:
    """What carries out the steps: a kfp.local runner, made for a job, and how the YAML is placed.

    Processes of this machine have no image and no limits, so without settings it is not placed.
    """

    runner: Callable[[Job], Any] = _subprocesses
    settings: Settings | None = None
    image: str = ""


def run_local(job: Job, listener: Listener, engine: Engine = Engine()) -> Outcome:
    """Run one upload through the six steps on this machine. Raises RunFailed."""
    with quiet():
        from kfp import components, local

    began = time.monotonic()
    shutil.rmtree(job.folder, ignore_errors=True)
    journal.forget(job.home.store, job.key)
    package = compile_pipeline("learn_concept", job.folder, engine.settings, engine.image)
    root = job.folder / "pipeline"
    root.mkdir()
    local.init(engine.runner(job), pipeline_root=str(root))
    log = job.folder / "log.txt"
    with quiet(), _step_environment(), open(log, "w") as file:
        pipeline = components.load_component_from_file(str(package))
        with contextlib.redirect_stdout(_Lines(file, listener)):
            release = _outputs(pipeline, job, log)
    costs = journal.read_costs(job.home.store, job.key)
    outcome = Outcome(time.monotonic() - began, costs, release)
    missing = [step for step in STEPS if step not in outcome.costs]
    if missing or not (release / "manifest.json").is_file():
        raise RunFailed(journal.read_failure(job.home.store, job.key), log)
    return outcome


def _outputs(pipeline: Callable[..., Any], job: Job, log: Path) -> Path:
    try:
        task = pipeline(**job.arguments)
    except RuntimeError as error:  # all that the runner raises for a step that failed
        raise RunFailed(journal.read_failure(job.home.store, job.key), log) from error
    return Path(task.output.path)


class _Lines(io.TextIOBase):
    """Standard output while the runner works: everything to the log, progress to a listener."""

    def __init__(self, log: io.TextIOBase | Any, listener: Listener) -> None:
        self._log, self._listener, self._rest = log, listener, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.write(line + "\n")
            progress = journal.heard(line)
            if progress:
                self._listener(progress)
        self._log.flush()
        return len(text)

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def _step_environment() -> Iterator[None]:
    """Steps inherit these: whom to follow into death, and no progress bars in a log."""
    given = {
        watch.VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
