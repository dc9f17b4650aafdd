"""What a run is, and how one runs on this machine: under one of kfp.local's runners.

What is compiled is what runs. The runner deletes its workspace folder after each pipeline, so none
is passed; it may report success without outputs, so the declared one is required; and it tells
only that a step failed, so the step's own error file is read.
"""

import contextlib
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.services.line import run_journal
from components.services.line.ledger import Ledger
from components.services.line.records import Records
from components.services.line.run_journal import Cost, Failure, StepProgress
from components.services.store.home import Home
from l2dm import redaction
from l2dm.errors import StepFailed
from l2dm.files import children
from l2dm.spec import Spec, from_json, may_replay
from pipelines.places.compilation import PIPELINES, compile_pipeline, quiet
from pipelines.places.settings import Settings

RUNNERS = re.compile(r"\d\d:\d\d:\d\d\.\d+ - [A-Z]+ - ")  # how kfp.local begins its lines
Listener = Callable[[StepProgress], None]
WHOLE = ("1/1",)
TMPDIR = "TMPDIR"  # where programs put temporary files


@dataclass(frozen=True)
class Breadth:
    """How widely a run is shared out: names of the shards for `score_memory` and `evaluate`.

    It changes how long the run takes and no byte of what it writes, so a count that is one off,
    when the champion moves while the run is submitted, does no harm.
    """

    memory: tuple[str, ...] = WHOLE
    evaluate: tuple[str, ...] = WHOLE

    @property
    def wide(self) -> bool:
        """Whether anything is shared out."""
        return (self.memory, self.evaluate) != (WHOLE, WHOLE)


@dataclass(frozen=True)
class Job:
    """One run of a pipeline: which concept's upload, with which base and spec (JSON).

    fence: number of the lease under which it runs. seed: of a check of the line's champion, which
    has no upload; None: an upload is learned.
    """

    line: str
    concept: str
    base: str
    spec: str
    home: Home
    fence: int
    seed: int | None = None

    @cached_property
    def breadth(self) -> Breadth:
        """How widely it is shared out; the line's records are read only where that depends."""
        spec = from_json(self.spec)
        if not may_be_wide(spec):
            return Breadth()
        return breadth_of(spec, Records(self.home.store, self.line).state())

    @property
    def pipeline(self) -> str:
        """Name of the pipeline, a key of PIPELINES."""
        if self.seed is not None:
            return "check_forgetting"
        return "learn_concept_wide" if self.breadth.wide else "learn_concept"

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps that every run of it has."""
        return PIPELINES[self.pipeline]

    @property
    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters."""
        shared: dict[str, Any] = {"line": self.line, "base": self.base, "spec": self.spec}
        shared["home"] = self.home.place
        if self.seed is not None:
            return {**shared, "seed": self.seed}
        if self.breadth.wide:
            shared["memory_shards"] = list(self.breadth.memory)
            shared["evaluate_shards"] = list(self.breadth.evaluate)
        return {**shared, "upload": self.concept, "fence": self.fence}

    @property
    def folder(self) -> Path:
        """Where the run leaves its log and doors on this machine."""
        return self.home.run(self.line, self.concept)

    @property
    def key(self) -> str:
        """Prefix of its costs and error in the store."""
        return self.home.run_key(self.line, self.concept)


def may_be_wide(spec: Spec) -> bool:
    """Whether any line is shared out under this spec."""
    return bool(spec.memory.fan_out or spec.evaluate.fan_out)


def breadth_of(spec: Spec, ledger: Ledger) -> Breadth:
    """The shards of the next task of a line with this ledger; its concept counts, too."""
    count = known_concepts(ledger) + 1
    # where candidates of past concepts are not drawn, a pod would do nothing
    above = spec.memory.fan_out if may_replay(spec) else 0
    return Breadth(
        memory=_shards(count, above, spec.memory.shards),
        evaluate=_shards(count, spec.evaluate.fan_out, spec.evaluate.shards),
    )


def known_concepts(ledger: Ledger) -> int:
    """How many concepts the champion knows: it and every version it was learned from."""
    states = ledger.concepts.values()
    parents = {one.version: one.parent_version for one in states if one.version}
    count, version = 0, ledger.standing.champion
    while version in parents:
        count, version = count + 1, parents[version]
    return count + ledger.left.get(version, 0)


def _shards(concepts: int, above: int, count: int) -> tuple[str, ...]:
    if not above or concepts <= above:
        return WHOLE
    return tuple(f"{number}/{count}" for number in range(1, count + 1))


@dataclass(frozen=True)
class Outcome:
    """A run that ended well: seconds on the wall, cost per step, folder of its last door.

    That is the release, or what a check found.
    """

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
        problems = "; ".join(failure.problems) if failure else _last_words(log)
        super().__init__(
            f"expected the pipeline to end with its outputs, found {where} failed: {problems} "
            f"(log: {log}); run it again, it continues where it stopped"
        )


def _last_words(log: Path) -> str:
    """What the log of a step that wrote no error ends with, without the runner's own lines."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    own = [line for line in lines if line.strip("- ") and not RUNNERS.match(line)]
    heard = [line for line in own if run_journal.heard(line) is None]
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
    """Run one upload, or one check, through its steps on this machine. Raises RunFailed."""
    with quiet():
        from kfp import components, local

    began = time.monotonic()
    shutil.rmtree(job.folder, ignore_errors=True)
    run_journal.forget(job.home.store, job.key)
    package = compile_pipeline(job.pipeline, job.folder, engine.settings, engine.image)
    root = job.folder / "pipeline"
    root.mkdir()
    local.init(engine.runner(job), pipeline_root=str(root))
    log = job.folder / "log.txt"
    with quiet(), children.inherited(), _temporary(), open(log, "w") as file:
        pipeline = components.load_component_from_file(str(package))
        with contextlib.redirect_stdout(_Lines(file, listener)):
            release = _outputs(pipeline, job, log)
    costs = run_journal.read_costs(job.home.store, job.key)
    outcome = Outcome(time.monotonic() - began, costs, release)
    missing = [step for step in job.steps if step not in outcome.costs]
    if missing or not (release / "manifest.json").is_file():
        raise RunFailed(run_journal.read_failure(job.home.store, job.key), log)
    return outcome


@contextlib.contextmanager
def _temporary() -> Iterator[None]:
    """A folder for temporary files of the steps: kfp makes one per step and removes none."""
    before = os.environ.get(TMPDIR)
    # Not below the state folder: a path may be too long for a socket in it.
    with tempfile.TemporaryDirectory(prefix="l2dm-run-", ignore_cleanup_errors=True) as folder:
        os.environ[TMPDIR] = folder
        try:
            yield
        finally:
            os.environ.pop(TMPDIR)
            if before is not None:
                os.environ[TMPDIR] = before


def _outputs(pipeline: Callable[..., Any], job: Job, log: Path) -> Path:
    try:
        task = pipeline(**job.arguments)
    except RuntimeError as error:  # all that the runner raises for a step that failed
        raise RunFailed(run_journal.read_failure(job.home.store, job.key), log) from error
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
                self._log.write(redaction.redacted(line) + "\n")
                progress = run_journal.heard(line)
                if progress:
                    self._listener(progress)
            self._log.flush()
        return len(text)

    def writable(self) -> bool:
        return True
