"""What the events of a line say: states of its concepts, its champion, the run that learns now.

A concept's state is read off its events. `submitted` opens it, `started` names the run that learns
it, `begun` fixes task id and parent, `retried` gives it back after a run that failed, `cancelled`
asks for its end, `ended` closes it in exactly one of five states; a later `submitted` opens it
again. An upload counts from its concept.json on, so its `submitted` may come last: then it changes
nothing. `promotion`, `rollback`, `forgotten` and `restored` move the champion.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from components.services.line.checks import Checks
from components.services.line.recipe import Recipe
from l2dm.doors import Finding

EventKind = Literal[
    "submitted", "started", "begun", "retried", "cancelled", "ended",
    "promotion", "rollback",
    "restored",  # registry and records were of different minutes: what was dropped
    "mended",  # aliases named other versions than the records say: set back
    "swept",  # files of an upload that never got its concept.json: removed
    "forgetting", "forgotten",  # a concept is being taken out; the version without it is champion
    "erasing", "erased",  # everything that holds a concept is being deleted; it is
    "expunged",  # in the place of an event of an erased concept: what the line's order rests on
    "kept",  # how a line learns, read off the champion of a line that is older than this record
    "scheduled", "checking", "checked", "unchecked",  # see checks.py
]  # fmt: skip
Ending = Literal["promoted", "held", "refused", "failed", "cancelled"]
State = Literal[
    "waiting", "learning", "promoted", "held", "refused", "failed", "cancelled",
    "forgotten",  # promoted once, and taken out since
]  # fmt: skip
ENDINGS: tuple[State, ...] = ("promoted", "held", "refused", "failed", "cancelled", "forgotten")
TASK = re.compile(r"t(\d{4,})")


@dataclass(frozen=True)
class Event:
    """One record: its number in the line, what it is, and its facts."""

    number: int
    kind: EventKind
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ConceptState:
    """Where one upload stands. `version` is None unless it became one.

    `upload` is the sha256 of its concept.json: other pictures are another upload. mark: of that
    object as the store listed it; "" when that is not known. first: number of the first event that
    names this upload. `cancelled`: who wants it to end, and why; "" when nobody does. findings:
    what the gate found, one for each reason; none where it was not asked.
    """

    name: str
    class_noun: str
    state: State
    version: int | None = None
    reasons: tuple[str, ...] = ()
    task: str = ""
    parent_version: int = 0
    upload: str = ""
    cancelled: str = ""
    findings: tuple[Finding, ...] = ()
    mark: str = field(default="", compare=False)
    first: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Started:
    """A run that was started and has not ended. fence: number of the lease it was started under."""

    concept: str
    upload: str
    run: str
    attempt: int
    fence: int


@dataclass(frozen=True)
class Standing:
    """Which version each alias of a line should name; 0 = none."""

    champion: int = 0
    previous: int = 0
    challenger: int = 0


@dataclass(frozen=True)
class Pause:
    """Until when an upload that was given back waits: so many seconds after that event."""

    event: int
    seconds: float


@dataclass(frozen=True)
class Forgetting:
    """A concept that is to be taken out of version `parent`, as a task of its own."""

    concept: str
    parent: int
    task: str


@dataclass
class Ledger:
    """The sum of a line's events up to number `last`; `add` takes the next one.

    mark: of the last event as the store lists it. tasks: highest number of a task that began.
    versions: task of every version that was promoted or held. tried: per concept how often each
    upload was started since it was last submitted or ended. served: when a run was started last.
    recipes: how each task was learned, in order. forgetting: what was begun to be taken out. left:
    how many concepts a version without one has. erased: versions that were deleted, and when.
    """

    last: int = 0
    mark: str = ""
    concepts: dict[str, ConceptState] = field(default_factory=dict)
    standing: Standing = Standing()
    active: Started | None = None
    tasks: int = 0
    versions: dict[int, str] = field(default_factory=dict)
    tried: dict[str, dict[str, int]] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    served: str = ""
    recipes: dict[str, Recipe] = field(default_factory=dict)
    forgetting: Forgetting | None = None
    left: dict[int, int] = field(default_factory=dict)
    erased: dict[int, str] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)

    def add(self, event: Event, mark: str = "") -> None:
        """Take the next event; mark: of it as the store lists it.

        Raises KeyError, TypeError, ValueError for one that is none.
        """
        facts = event.facts
        name: str = facts.get("concept", "")
        self._move(event)
        if name and not _is_late(self.concepts.get(name), event):
            self.pauses.pop(name, None)
            self._count(event, name)
            before = self.concepts.get(name)
            self.concepts[name] = _known_by(before, _after(before, event), event)
        self._forget(event)
        if event.kind == "begun":
            self.tasks = max(self.tasks, _task_number(facts["task"]))
        elif event.kind == "retried" and facts.get("pause"):
            self.pauses[name] = Pause(event.number, float(facts["pause"]))
        if "recipe" in facts:
            self.recipes[facts["task"]] = Recipe.from_data(facts["recipe"])
        self.checks.add(event.kind, facts)
        self.last, self.mark = event.number, mark

    def _move(self, event: Event) -> None:
        """Champion and challenger: the version held last, until it is champion or one follows."""
        facts, now = event.facts, self.standing
        if event.kind in ("promotion", "rollback", "forgotten"):
            challenger = 0 if now.challenger == facts["target"] else now.challenger
            self.standing = Standing(facts["target"], facts["source"], challenger)
            if "task" in facts:
                self.versions[facts["target"]] = facts["task"]
        elif event.kind in ("ended", "expunged") and facts.get("state") == "held":
            self.standing = replace(now, challenger=facts["version"])
            self.versions[facts["version"]] = facts["task"]
        elif event.kind == "restored":
            self._restore(facts)

    def _forget(self, event: Event) -> None:
        """What is taken out of the line, and what is deleted for good."""
        facts = event.facts
        if event.kind == "forgetting":
            self.tasks = max(self.tasks, _task_number(facts["task"]))
            parent = facts["parent_version"]
            self.forgetting = Forgetting(facts["forgets"], parent, facts["task"])
        elif event.kind == "forgotten":
            self.forgetting = None
            self.left[facts["target"]] = facts["left"]
            known = self.concepts.get(facts["forgets"])
            if known:
                why = f": {facts['reason']}" if facts["reason"] else ""
                reasons = (f"taken out in version {facts['target']} by {facts['by']}{why}",)
                self.concepts[known.name] = replace(
                    known, state="forgotten", reasons=reasons, findings=()
                )
        elif event.kind == "erasing":
            self.erased |= dict.fromkeys(facts["versions"], str(facts["at"]))
            self.versions = {n: of for n, of in self.versions.items() if n not in self.erased}
            names = ("champion", "previous", "challenger")
            self.standing = Standing(**{name: facts[name] for name in names})
        elif event.kind == "expunged" and facts.get("task"):
            self.tasks = max(self.tasks, _task_number(facts["task"]))

    def _restore(self, facts: Mapping[str, Any]) -> None:
        names = ("champion", "previous", "challenger")
        self.standing = Standing(**{name: facts[name] for name in names})
        self.tasks = max(self.tasks, facts["tasks"])
        lost = {one["version"] for one in facts["lost"]}
        self.versions = {one: task for one, task in self.versions.items() if one not in lost}
        for name, state in self.concepts.items():
            opened = ConceptState(name, state.class_noun, "waiting")
            if state.version in lost:
                reason = f"version {state.version} is not in the registry any more"
                self.concepts[name] = replace(opened, reasons=(reason,))
            elif state.state not in ENDINGS and state.parent_version in lost:
                self.concepts[name] = replace(state, task="", parent_version=0)
        self.versions |= {int(one): str(task) for one, task in facts.get("versions", {}).items()}
        for known in facts.get("back", ()):  # an earlier repair had dropped their versions
            self.concepts[known["name"]] = _state_of(known)

    def _count(self, event: Event, name: str) -> None:
        facts = event.facts
        if event.kind == "started":
            fields = ("concept", "upload", "run", "attempt", "fence")
            self.active = Started(**{one: facts[one] for one in fields})
            self.served = facts["at"]
            tried = self.tried.setdefault(name, {})
            tried[facts["upload"]] = tried.get(facts["upload"], 0) + 1
        elif event.kind in ("ended", "retried") and self.active and self.active.concept == name:
            self.active = None
        if event.kind in ("submitted", "ended"):
            self.tried.pop(name, None)

    def attempts(self, concept: str, upload: str) -> int:
        """How often this upload was started since it was last submitted or ended."""
        return self.tried.get(concept, {}).get(upload, 0)

    @property
    def recipe(self) -> Recipe | None:
        """How the line learns: as its champion was learned, or as its last task, without one.

        None when no task was begun, and where the champion is older than this record of it.
        """
        if not self.standing.champion:
            return next(reversed(self.recipes.values()), None)
        return self.recipes.get(self.versions.get(self.standing.champion, ""))

    def version_of(self, task: str) -> int | None:
        """The version that a task became, promoted or held; None when it is none yet."""
        return next((number for number, of in self.versions.items() if of == task), None)

    def to_data(self) -> dict[str, Any]:
        """As JSON can hold it; `from_data` is the inverse."""
        numbered = {
            name: {str(number): of for number, of in getattr(self, name).items()}
            for name in ("versions", "left", "erased")
        }
        return asdict(self) | numbered | {"checks": self.checks.to_data()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for something else."""
        concepts = {name: _state_of(facts) for name, facts in data["concepts"].items()}
        return cls(
            int(data["last"]),
            str(data["mark"]),
            concepts,
            Standing(**data["standing"]),
            Started(**data["active"]) if data["active"] else None,
            int(data["tasks"]),
            {int(number): str(task) for number, task in data["versions"].items()},
            {name: dict(counts) for name, counts in data["tried"].items()},
            {name: Pause(**pause) for name, pause in data["pauses"].items()},
            str(data["served"]),
            {str(task): Recipe.from_data(one) for task, one in data["recipes"].items()},
            Forgetting(**data["forgetting"]) if data["forgetting"] else None,
            {int(number): int(count) for number, count in data["left"].items()},
            {int(number): str(at) for number, at in data["erased"].items()},
            Checks.from_data(data["checks"]),
        )


def _state_of(facts: Mapping[str, Any]) -> ConceptState:
    """A state as JSON holds it."""
    return ConceptState(
        **{**facts, "reasons": tuple(facts["reasons"]), "findings": findings_of(facts)}
    )


def summed(events: Sequence[Event]) -> Ledger:
    """The ledger of a line with these events."""
    ledger = Ledger()
    for event in events:
        ledger.add(event)
    return ledger


def _is_late(before: ConceptState | None, event: Event) -> bool:
    """Whether it tells of an upload that was found before it was recorded as submitted."""
    if event.kind != "submitted" or before is None:
        return False
    if before.state not in ENDINGS:
        return bool(before.upload)
    facts = event.facts  # since: number of the last event before the upload was put there
    return before.upload == facts.get("upload") and before.first > facts.get("since", event.number)


def _known_by(before: ConceptState | None, now: ConceptState, event: Event) -> ConceptState:
    """The state with mark and first event of the upload that it names."""
    same = before if before and now.upload == before.upload else ConceptState("", "", "waiting")
    first, mark = same.first, same.mark
    if event.facts.get("upload") == now.upload:
        mark = event.facts.get("mark") or mark
    return replace(now, mark=mark, first=(first or event.number) if now.upload else 0)


def _after(before: ConceptState | None, event: Event) -> ConceptState:
    facts = event.facts
    now = before or ConceptState(facts["concept"], "", "waiting")
    if event.kind == "submitted":
        return ConceptState(now.name, facts["class_noun"], "waiting")
    if event.kind == "started":
        again = now.upload == facts["upload"] and now.state not in ENDINGS
        kept = now if again else ConceptState(now.name, now.class_noun, "waiting")
        return replace(kept, state="learning", upload=facts["upload"])
    if event.kind == "retried":
        kept = replace(now, task="", parent_version=0) if facts["anew"] else now
        return replace(kept, state="waiting", reasons=tuple(facts["reasons"]))
    if event.kind == "cancelled":
        return _cancelled(now, facts)
    if event.kind == "begun":
        if now.state in ENDINGS and now.upload == facts["upload"]:
            return now  # a run that was stopped or taken for dead, and wakes up late
        return replace(
            ConceptState(now.name, facts["class_noun"], "learning", cancelled=now.cancelled),
            task=facts["task"],
            parent_version=facts["parent_version"],
            upload=facts["upload"],
        )
    if event.kind == "ended":
        return _ended(now, facts)
    return now


def _cancelled(now: ConceptState, facts: Mapping[str, Any]) -> ConceptState:
    if now.state in ENDINGS:
        if now.upload == facts["upload"]:  # it came too late
            return now
        now = ConceptState(now.name, now.class_noun, "waiting")
    why = f": {facts['reason']}" if facts["reason"] else ""
    asked = f"cancelled by {facts['by']}{why}"
    return replace(now, upload=facts["upload"], cancelled=asked)


def _ended(now: ConceptState, facts: Mapping[str, Any]) -> ConceptState:
    return replace(
        now,
        class_noun=facts["class_noun"] or now.class_noun,
        state="cancelled" if _was_cancelled(now, facts) else facts["state"],
        version=facts["version"],
        reasons=tuple(facts["reasons"]),
        findings=findings_of(facts),
        task=facts["task"] or now.task,
        upload=facts["upload"],
        cancelled="",
    )


def _was_cancelled(now: ConceptState, facts: Mapping[str, Any]) -> bool:
    """An end of a time when a cancel was recorded as a failure."""
    asked = bool(now.cancelled) and facts["reasons"] == [now.cancelled]
    return asked and facts["state"] == "failed"


def findings_of(facts: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What the gate found, of an event or a snapshot; older ones do not say."""
    return tuple(Finding(one["question"], one["passed"]) for one in facts.get("findings", ()))


def _task_number(task: str) -> int:
    found = TASK.fullmatch(task)
    if found is None:
        raise ValueError(f"expected a task like t0001, found {task!r}")
    return int(found[1])
