"""What happened to a line, append-only: one JSON object per event, numbered, never rewritten.

A concept's state is read off its events. `submitted` opens it, `started` names the run that learns
it, `begun` fixes task id and parent, `retried` gives it back after a run that failed, `ended`
closes it in exactly one of four states; a later `submitted` opens it again. What concerns checks
of the champion is read by `checks.py`.
"""

import getpass
import json
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from components.services.objects import Objects
from l2dm.errors import Conflict, Corrupt

Kind = Literal[
    "submitted",
    "started",
    "begun",
    "retried",
    "ended",
    "promotion",
    "rollback",
    "scheduled",
    "checking",
    "checked",
    "unchecked",
]
Ending = Literal["promoted", "held", "refused", "failed"]
State = Literal["waiting", "learning", "promoted", "held", "refused", "failed"]
EVENT = re.compile(r"\d{6,}\.json")
ENDINGS: tuple[Ending, ...] = ("promoted", "held", "refused", "failed")


@dataclass(frozen=True)
class Event:
    """One record: its number in the line, what it is, and its facts."""

    number: int
    kind: Kind
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ConceptState:
    """Where one upload stands. `version` is None unless it became one.

    `upload` is the sha256 of its concept.json: other pictures are another upload.
    """

    name: str
    class_noun: str
    state: State
    version: int | None = None
    reasons: tuple[str, ...] = ()
    task: str = ""
    parent_version: int = 0
    upload: str = ""


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


class Records:
    """The events of one line in an object store, `records/<line>/000001.json` and so on."""

    def __init__(self, store: Objects, line: str) -> None:
        self._store, self._folder = store, f"records/{line}/"
        self._known: dict[str, Event] = {}  # an event never changes: it is read once

    def append(self, kind: Kind, **facts: Any) -> Event:
        """Write the next event. Two writers never share a number: creation is conditional."""
        while True:
            try:
                return self.append_next(self._last(), kind, **facts)
            except Conflict:  # another writer took the number
                continue

    def append_next(self, last: int, kind: Kind, **facts: Any) -> Event:
        """Write the event after number `last`. Raises Conflict when that one is not the last."""
        facts = {
            "kind": kind,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "by": _user(),
            "id": uuid.uuid4().hex,  # tells a retry of this write from another's
            **facts,
        }
        key = f"{self._folder}{last + 1:06d}.json"
        self._store.create(key, json.dumps(facts, indent=1).encode())
        return Event(last + 1, kind, facts)

    def events(self) -> tuple[Event, ...]:
        """Every event, oldest first."""
        return tuple(self._event(key) for key in self._keys())

    def concepts(self) -> tuple[ConceptState, ...]:
        """The state of every concept that has an event, in order of first appearance."""
        states: dict[str, ConceptState] = {}
        for event in self.events():
            name = event.facts.get("concept")
            if name:
                states[name] = _after(states.get(name), event)
        return tuple(states.values())

    def concept(self, name: str) -> ConceptState | None:
        """The state of one concept; None when nothing is recorded of it."""
        return next((state for state in self.concepts() if state.name == name), None)

    def next_task(self) -> str:
        """The id of the next accepted upload: t0001, t0002, ..."""
        begun = {event.facts["task"] for event in self.events() if event.kind == "begun"}
        return f"t{len(begun) + 1:04d}"

    def end(self, ended: ConceptState, **facts: Any) -> None:
        """Record a terminal state once: a second, equal ending is the same event."""
        if ended.state not in ENDINGS:
            raise ValueError(f"expected one of {ENDINGS}, found {ended.state!r}")
        now = self.concept(ended.name)
        if now is not None and now.state in ENDINGS and now.task == ended.task != "":
            return
        self.append(
            "ended",
            concept=ended.name,
            class_noun=ended.class_noun,
            task=ended.task,
            state=ended.state,
            version=ended.version,
            reasons=list(ended.reasons),
            upload=ended.upload,
            **facts,
        )

    def _event(self, key: str) -> Event:
        if key not in self._known:
            try:
                facts = json.loads(self._store.read(key).data)
                self._known[key] = Event(_number(key), facts["kind"], facts)
            except (ValueError, KeyError, TypeError) as error:
                raise Corrupt(
                    f"expected an event as JSON in {key!r}, found something else ({error}); "
                    "restore that object from a backup, it is never rewritten"
                ) from error
        return self._known[key]

    def _last(self) -> int:
        return max(map(_number, self._keys()), default=0)

    def _keys(self) -> list[str]:
        """Keys of the events in order; what others have put there is none."""
        keys = [entry.key for entry in self._store.list(self._folder)]
        return [key for key in keys if EVENT.fullmatch(key.removeprefix(self._folder))]


def standing(events: Sequence[Event]) -> Standing:
    """Champion, previous and challenger of a line, read off its events.

    The challenger is the version that was held last; it is none any more once it is champion.
    """
    now = Standing()
    for event in events:
        facts = event.facts
        if event.kind in ("promotion", "rollback"):
            challenger = 0 if now.challenger == facts["target"] else now.challenger
            now = Standing(facts["target"], facts["source"], challenger)
        elif event.kind == "ended" and facts["state"] == "held":
            now = replace(now, challenger=facts["version"])
    return now


def active(events: Sequence[Event]) -> Started | None:
    """The run that learns now; None when nothing was started since the last one ended."""
    now: Started | None = None
    for event in events:
        facts = event.facts
        if event.kind == "started":
            names = ("concept", "upload", "run", "attempt", "fence")
            now = Started(**{name: facts[name] for name in names})
        elif event.kind in ("ended", "retried") and now and facts["concept"] == now.concept:
            now = None
    return now


def attempts(events: Sequence[Event], concept: str, upload: str) -> int:
    """How often this upload was started since it was last submitted or ended."""
    count = 0
    for event in events:
        if event.facts.get("concept") != concept:
            continue
        if event.kind in ("submitted", "ended"):
            count = 0
        elif event.kind == "started":
            count += event.facts["upload"] == upload
    return count


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
    if event.kind == "begun":
        return replace(
            ConceptState(now.name, facts["class_noun"], "learning"),
            task=facts["task"],
            parent_version=facts["parent_version"],
            upload=facts["upload"],
        )
    if event.kind == "ended":
        return replace(
            now,
            class_noun=facts["class_noun"] or now.class_noun,
            state=facts["state"],
            version=facts["version"],
            reasons=tuple(facts["reasons"]),
            task=facts["task"] or now.task,
            upload=facts["upload"],
        )
    return now


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        return f"uid {os.getuid()}"
