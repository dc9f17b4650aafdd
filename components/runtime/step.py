"""What the six components share: time and memory of a step, its progress, its error, its run.

A component's body is `with Step(...) as step: step.run(function, ...)`. Everything that fails
inside is left in the run folder for the runner and raised again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar

from components.runtime.base_cache import local_base
from components.services.line import run_journal
from components.services.line.checks import CONCEPT as CHECK
from components.services.line.leases import Leases
from components.services.line.run_journal import Cost, StepProgress, say
from components.services.line.uploads import Commitment, Uploads, fetched
from components.services.store.home import Home
from components.services.store.open import SCHEME
from components.services.tracking.runs import MlflowTracking, Point, Tracking
from components.services.tracking.untold import PatientTracking, tell_again
from l2dm import doors
from l2dm.errors import FilesGone, L2dmError, TrackingFailed, words
from l2dm.files import children, door_files, manifest
from l2dm.spec import Spec, from_json

D = TypeVar("D")
T = TypeVar("T")
log = logging.getLogger(__name__)
FLUSH_SECONDS = 5.0  # between batches of metric points
SAY_SECONDS = 1.0  # between progress lines
SILENCE = 1800.0  # seconds that an MLflow which does not answer is waited for with a release


WORDS_ONLY = {"intake"}  # steps that load a base's tokenizers and no weights
NO_BASE = {"promote"}  # steps that load nothing of a base


@dataclass(frozen=True)
class Parameters:
    """Parameters that every component has: load name of the base, spec as JSON, state folder."""

    base: str
    spec: str
    home: str


@dataclass(frozen=True)
class StepSubject:
    """What a step works on. Before intake has accepted an upload its task is None.

    tracked: name of the tracking run of a step that works on no task.
    """

    line: str
    concept: str
    task: doors.Task | None = None
    tracked: str = ""

    @property
    def run(self) -> str:
        """Name of its tracking run; empty before intake has named the task."""
        return self.task.id if self.task else self.tracked


def upload_of(line: str, upload: str) -> StepSubject:
    """The upload that intake looks at, by its concept's name."""
    return StepSubject(line, upload)


def checks_of(line: str) -> StepSubject:
    """The checks of a line: one tracking run holds them all, so that it shows a time line."""
    return StepSubject(line, CHECK, tracked="checks")


def task_of(folder: str) -> StepSubject:
    """The accepted task that every later step works on. Raises BadDoor."""
    task = manifest.read(Path(folder), doors.Task).record
    return StepSubject(task.line, task.concept.name, task)


def shard_name(step: str, shard: str) -> str:
    """What shard "2/4" of a step is called where steps have names."""
    return f"{step}_{shard.partition('/')[0]}"


def folders_of(artifacts: Sequence[Any] | None) -> list[Path]:
    """Where a list of doors lies; none where the pipeline has none."""
    return [Path(artifact.path) for artifact in artifacts or ()]


class Step:
    """One run of one step. Use as a context manager around the step's function."""

    def __init__(self, name: str, subject: StepSubject, settings: Parameters, metrics: Any) -> None:
        self.name, self.subject, self.settings = name, subject, settings
        self.home = Home.at(settings.home)
        self.run_key = self.home.run_key(subject.line, subject.concept)
        self.last_terms: Mapping[str, float] = {}
        self._metrics, self._told = metrics, dict[str, float]()
        self._points: list[Point] = []
        self._flushed = self._said = time.monotonic()
        self._seconds = self._outside = 0.0  # of the step's own work; of telling MLflow meanwhile
        self._tracking: PatientTracking | None = None
        self._fence = 0  # no lease has that number
        self._exits = ExitStack()
        self.looked = Commitment()  # of the upload that was fetched

    @cached_property
    def spec(self) -> Spec:
        """The parsed spec. Raises BadSpec."""
        return from_json(self.settings.spec)

    @cached_property
    def base(self) -> str:
        """What the library loads the base by; one in a bucket is fetched, if the step loads any."""
        base = self.settings.base
        if not base.startswith(SCHEME) or self.name in NO_BASE:
            return base
        say(StepProgress(self.name, f"base {base}"))  # to fetch it takes minutes, the first time
        return local_base(base, self.home)

    @cached_property
    def context(self) -> Any:
        """The `l2dm.steps.Context` of an accepted task."""
        task = self.subject.task
        assert task is not None
        return self.context_for(task.id, task.parent_version)

    def context_for(self, task_id: str, parent_version: int) -> Any:
        """The `l2dm.steps.Context` of a task that is being named."""
        from l2dm.steps import Context

        return Context(
            base=self.base,
            line=self.subject.line,
            task_id=task_id,
            parent_version=parent_version,
            spec=self.spec,
        )

    @property
    def tracking(self) -> PatientTracking:
        """The run of this task, told now or later; opened on first use: that imports mlflow."""
        if self._tracking is None:
            assert self.subject.run
            self._tracking = PatientTracking(partial(self._run_of, self.subject.run, None))
        return self._tracking

    def _run_of(self, task: str, run: str | None) -> Tracking:
        return MlflowTracking(self.home, self.subject.line, task, run)

    def __enter__(self) -> Self:
        children.follow_learner()
        say(StepProgress(self.name, "begins"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()
        self._keep_untold()
        if error is not None:
            run_journal.write_failure(self.home.store, self.run_key, self.name, error)
            return
        cost = self.costs()[self.name]
        run_journal.write_cost(self.home.store, self.run_key, self.name, cost)
        costs = {"seconds": cost.seconds, "peak_mb": cost.peak_mb}
        self._write_metrics(costs)
        say(StepProgress(self.name, f"{cost.seconds:.1f} s, peak {cost.peak_mb:.0f} MB", 1, 1))

    def run(self, function: Callable[..., D], *args: Any, **options: Any) -> D:
        """Call the step's function, paths as Path; its time is the step's own work.

        Loading libraries and telling MLflow are the platform's cost: they are left out.
        """
        self._import_libraries()
        self._outside, began = 0.0, time.monotonic()
        door = function(*(Path(arg) if isinstance(arg, str) else arg for arg in args), **options)
        self._seconds += time.monotonic() - began - self._outside
        return door

    @cached_property
    def uploads(self) -> Uploads:
        """The line's uploads."""
        return Uploads(self.home.store, self.subject.line)

    def fetch(self) -> Path:
        """A copy of the upload on this machine, which goes when the step ends.

        Raises BadUpload when it holds too much.
        """
        line, concept = self.subject.line, self.subject.concept
        self.looked = self.uploads.commitment(concept)
        work = self.home.work(line, concept)
        work.mkdir(parents=True, exist_ok=True)
        # a folder of this step's own: another run of this upload may be there yet
        copy = TemporaryDirectory(prefix="upload-", dir=work, ignore_cleanup_errors=True)
        scratch = self._exits.enter_context(copy)
        limit = self.spec.intake.max_bytes
        folder = self.uploads.fetch(concept, Path(scratch) / line / concept, max_bytes=limit)
        self.looked = fetched(folder, self.looked.mark)
        return folder

    def require_lease(self, fence: int) -> None:
        """Go on only while this run holds its line under that number. Raises LostLease."""
        self._fence = fence
        self.hold_lease()

    def hold_lease(self) -> None:
        """Whether this run still holds its line. Raises LostLease."""
        Leases(self.home.store).check(self.subject.line, self._fence)

    def patiently(self, call: Callable[[], T]) -> T:
        """Call it again while MLflow does not answer: what was learned is worth waiting for.

        Raises TrackingFailed after half an hour, and at once for what MLflow refused.
        """
        until, pause = time.monotonic() + SILENCE, 1.0
        while True:
            try:
                return call()
            except TrackingFailed as error:
                if error.refused or isinstance(error, FilesGone) or time.monotonic() > until:
                    raise
                say(StepProgress(self.name, f"waits for MLflow: {error}"))
            time.sleep(pause)
            pause = min(2 * pause, SILENCE / 60)

    def tell(self, values: Mapping[str, float]) -> None:
        """Numbers for the pipeline's own page (`dsl.Metrics`)."""
        self._told.update(values)

    def measure(self, values: Mapping[str, float], at: int) -> None:
        """Metric points of the task's run, under their full names."""
        self._points += [(name, at, value) for name, value in values.items()]

    def on_step(self, report: Any) -> None:
        """Take a `training.fit.StepReport`: points for the run, a progress line once a second."""
        self.last_terms = dict(report.terms)
        self.measure({f"train/{name}": value for name, value in report.terms.items()}, report.step)
        now = time.monotonic()
        if now - self._flushed > FLUSH_SECONDS:
            self._flush()
        if now - self._said > SAY_SECONDS:
            self._said = now
            losses = "  ".join(f"{name} {value:.4f}" for name, value in report.terms.items())
            say(StepProgress(self.name, losses, report.step, report.steps))

    def on_curve(self, door: manifest.Door[doors.Adapter]) -> None:
        """Take the whole loss curve: a killed run had points that it never got to write."""
        for name, values in door_files.read_curve(door.folder).items():
            for at, value in enumerate(values, start=1):
                self.measure({f"train/{name}": value}, at)

    def on_progress(self, done: int, total: int) -> None:
        """Take how many pictures are drawn: a progress line once a second."""
        now = time.monotonic()
        if now - self._said > SAY_SECONDS:
            self._said = now
            say(StepProgress(self.name, "pictures", done, total))

    def scratch(self, inputs: Sequence[str]) -> Path:
        """Where a killed run of this step with the same inputs finds its checkpoints."""
        texts = [(Path(folder) / manifest.FILE).read_bytes() for folder in inputs]
        key = hashlib.sha256(self.settings.spec.encode() + b"".join(texts)).hexdigest()[:16]
        return self.home.work(self.subject.line, self.subject.concept) / key

    def costs(self) -> dict[str, Cost]:
        """What the steps of this task took, this one so far."""
        so_far = Cost(round(self._seconds, 3), round(run_journal.peak_mb(), 1))
        return {**run_journal.read_costs(self.home.store, self.run_key), self.name: so_far}

    def close(self) -> None:
        """End the task's run in its last step, with the cost of every step in one request."""
        for step, cost in self.costs().items():
            values = {"seconds": cost.seconds, "peak_mb": cost.peak_mb}
            self.measure({f"cost/{step}_{key}": value for key, value in values.items()}, 0)
        self._flush()
        self.tracking.finish("FINISHED")

    def _keep_untold(self) -> None:
        """Leave what MLflow was not told, or tell it what earlier steps left: it answers now."""
        self._flush()
        if self._tracking is None:
            return
        store, line = self.home.store, self.subject.line
        try:
            self._tracking.keep(store, line, self.subject.run, self.name)
            if not self._tracking.why:
                tell_again(store, line, self._run_of)
        except (L2dmError, OSError) as failed:  # what the step made is worth more
            log.warning("what MLflow was not told cannot be kept: %s", words(failed))

    def _import_libraries(self) -> None:
        from l2dm.bases.folder import import_classes

        if self.name not in NO_BASE:
            import_classes(self.base, weights=self.name not in WORDS_ONLY)

    def _flush(self) -> None:
        began = time.monotonic()
        if self._points and self.subject.run:
            self.tracking.metrics(self._points)
            self._points = []
        self._flushed = time.monotonic()
        self._outside += self._flushed - began

    def _write_metrics(self, costs: Mapping[str, float]) -> None:
        """Metadata for the page, and a file because a cached run needs one at `.path`."""
        told = {**self._told, **costs}
        for name, value in told.items():
            self._metrics.log_metric(name, value)
        Path(self._metrics.path).write_text(json.dumps(told, indent=1, sort_keys=True))
