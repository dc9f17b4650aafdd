"""Runs without models: a pipeline that keeps the steps' contracts and takes no time.

It does what the real steps do to records, registry and leases, in their order, and can be cut off
between any two of its actions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from components.services.line.leases import Leases
from components.services.line.ledger import ENDINGS, ConceptState
from components.services.line.promotion import require_parent, settle
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.line.uploads import Uploads
from components.services.tracking.registry import Registry, VersionFacts
from l2dm.errors import L2dmError
from pipelines.places.run_here import Job
from pipelines.places.runs import Look


@dataclass
class FastRuns:
    """A place where runs execute when the test says so.

    verdict: whether a concept's gate opens. cut: called before every action of a run; raising
    there is the death of the run.
    """

    registry: Callable[[], Registry]
    release: Path
    verdict: Callable[[str], bool] = lambda concept: True
    cut: Callable[[], None] = lambda: None
    health: Callable[[str], str] = lambda line: "healthy"
    jobs: dict[str, Job] = field(default_factory=dict)
    ends: dict[str, Look] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    lasting: bool = False
    patience: float = 60.0

    def start(self, name: str, job: Job) -> None:
        self.jobs.setdefault(name, job)

    def look(self, name: str) -> Look:
        if name not in self.jobs:
            return Look("absent")
        return self.ends.get(name, Look("running"))

    def stop(self, name: str) -> None:
        self.stopped.append(name)
        self.ends.setdefault(name, Look("failed", text="stopped"))

    def running(self) -> list[str]:
        return [name for name in self.jobs if name not in self.ends]

    def finish(self, name: str) -> None:
        """Run it through; an error of this project is the error of its last step."""
        try:
            self._steps(self.jobs[name])
        except L2dmError as error:
            self.fail(name, Failure("promote", type(error).__name__, (str(error),)))
        else:
            self.ends[name] = Look("succeeded")

    def fail(self, name: str, failure: Failure | None) -> None:
        self.ends[name] = Look("failed", failure, "its process was ended from outside")

    def _steps(self, job: Job) -> None:
        if job.seed is not None:
            self._check(job, job.seed)
            return
        keep_contracts(job, self.registry(), self.release, self.verdict(job.concept), self.cut)

    def _check(self, job: Job, seed: int) -> None:
        records = Records(job.home.store, job.line)
        champion = records.state().standing.champion
        self.cut()
        health = self.health(job.line)
        records.append(
            "checked",
            line=job.line,
            version=champion,
            seed=seed,
            health=health,
            cause="" if health == "healthy" else "model",
            digest=f"check-{seed}",
            scores={},
            drops={},
            reasons=["made up"],
        )


def keep_contracts(
    job: Job,
    registry: Registry,
    release: Path,
    is_open: bool,
    cut: Callable[[], None],
    salt: str = "",
) -> None:
    """What the six steps do to records, registry and leases; `cut` is called before each action.

    salt: two runs of one task that differ in it make other bytes, as two machines may.
    """
    concept = job.concept
    digest = Uploads(job.home.store, job.line).digest(concept)
    records = Records(job.home.store, job.line)
    known = records.concept(concept)
    if known and known.task and known.upload == digest and known.state not in ENDINGS:
        task, parent = known.task, known.parent_version
    else:
        task, parent = records.next_task(), records.state().standing.champion
        cut()
        records.append(
            "begun",
            concept=concept,
            class_noun="dog",
            task=task,
            parent_version=parent,
            upload=digest,
        )
    cut()
    Leases(job.home.store).check(job.line, job.fence)  # train
    cut()
    Leases(job.home.store).check(job.line, job.fence)  # promote
    facts = VersionFacts(task, concept, "dog", parent, f"digest-{task}{salt}", is_open)
    require_parent(registry, records, job.line, facts)
    cut()
    version = registry.register(job.line, release, facts)
    cut()
    leases = Leases(job.home.store)
    allowed = lambda: leases.check(job.line, job.fence)  # noqa: E731
    crowned = settle(registry, records, job.line, version, allowed)
    cut()
    state = "promoted" if crowned else "held"
    records.end(ConceptState(concept, "dog", state, version, (), task, parent, digest))
