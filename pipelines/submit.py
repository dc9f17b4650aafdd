"""Run the compiled pipeline: on this machine, under kfp.local's subprocess runner.

What is compiled is what runs. The runner deletes its workspace folder after each pipeline, so none
is passed; it may report success without outputs, so the declared one is required; and it tells
only that a step failed, so the step's own error file is read.
"""

import contextlib
import io
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from components.services import journal, watch
from components.services.home import Home
from components.services.journal import Cost, Failure, Progress
from components.services.records import Records
from l2dm.errors import StepFailed
from l2dm.spec import from_json
from pipelines.breadth import Breadth, breadth_of, may_be_wide

Listener = Callable[[Progress], None]
STEPS = ("intake", "generate_prior", "score_memory", "train", "evaluate", "promote")
PIPELINES = ("learn_concept", "learn_concept_wide")


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

    @cached_property
    def breadth(self) -> Breadth:
        """How widely it is shared out; the line's records are read only where that depends."""
        spec = from_json(self.spec)
        if not may_be_wide(spec):
            return Breadth()
        return breadth_of(spec, Records(self.home.store, self.line).events())

    @property
    def pipeline(self) -> str:
        """Name of the pipeline, one of PIPELINES."""
        return "learn_concept_wide" if self.breadth.wide else "learn_concept"

    @property
    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters."""
        shards = {
            "memory_shards": list(self.breadth.memory),
            "evaluate_shards": list(self.breadth.evaluate),
        }
        return {
            **(shards if self.breadth.wide else {}),
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
        """Seconds that the platform took: the wall minus the steps' own work.

        Shards work at the same time: with them it is not known, and at least 0.
        """
        return max(0.0, self.wall - sum(cost.seconds for cost in self.costs.values()))


class RunFailed(StepFailed):
    """A run that ended without its outputs; `failure` is what the step said, if it could."""

    def __init__(self, failure: Failure | None, log: Path) -> None:
        self.failure = failure
        where = f"step {failure.step}" if failure else "a step that could not say why"
        problems = "; ".join(failure.problems) if failure else "its process was ended from outside"
        super().__init__(
            f"expected the pipeline to end with a release, found {where} failed: {problems} "
            f"(log: {log}); run `l2dm learn` again to continue where it stopped"
        )


def compile_pipelines(folder: Path) -> tuple[Path, ...]:
    """Write every pipeline, one YAML each."""
    return tuple(compile_pipeline(name, folder) for name in PIPELINES)


def compile_pipeline(name: str, folder: Path) -> Path:
    """Write one pipeline into a folder; the same code gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    with _quiet():
        from kfp import compiler

        pipeline = getattr(import_module(f"pipelines.{name}"), name)
        compiler.Compiler().compile(pipeline, str(path))
    return path


def run_local(job: Job, listener: Listener) -> Outcome:
    """Run one upload through the six steps on this machine. Raises RunFailed."""
    with _quiet():
        from kfp import components, local

    began = time.monotonic()
    shutil.rmtree(job.folder, ignore_errors=True)
    journal.forget(job.home.store, job.key)
    package, root = compile_pipeline(job.pipeline, job.folder), job.folder / "pipeline"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    log = job.folder / "log.txt"
    with _quiet(), _step_environment(), open(log, "w") as file:
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
        self._log, self._listener = log, listener
        self._rest = dict[int, str]()  # by thread: shards run at the same time
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        thread = threading.get_ident()
        with self._lock:
            *lines, self._rest[thread] = (self._rest.get(thread, "") + text).split("\n")
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what kfp warns about: image names without "python", its own deprecations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"kfp\..*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
