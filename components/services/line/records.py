"""What happened to a line, append-only: one JSON object per event, numbered, never removed.

None is rewritten either, but to take out the name of a concept that was erased.

What the events mean is in `ledger.py`; here they are written on condition and read once.
"""

import getpass
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from components.services.line import snapshots
from components.services.line.ledger import (
    ENDINGS,
    ConceptState,
    Event,
    EventKind,
    Ledger,
)
from components.services.store.objects import Entry, Objects
from l2dm import redaction
from l2dm.errors import BadStore, Conflict, Corrupt, ObjectError

EVENT = re.compile(r"\d{6,}\.json")
WORDS = ("reasons", "reason", "why")  # facts that are words of people and of errors
MANY = 1000  # numbers of one gap that are named
COMPACT = 50  # events that a new process may have to read one by one


class Records:
    """The events of one line in an object store, `records/<line>/000001.json` and so on.

    Keeps the sum of what it has read: a second look reads what came since, with one request.
    """

    def __init__(self, store: Objects, line: str) -> None:
        self._store, self._line, self._folder = store, line, f"records/{line}/"
        self._ledger: Ledger | None = None
        self._saved = 0  # number of the last event that a snapshot sums

    def append(self, kind: EventKind, **facts: Any) -> Event:
        """Write the next event. Two writers never share a number: creation is conditional."""
        while True:
            try:
                return self.append_next(self._last(), kind, **facts)
            except Conflict:  # another writer took the number
                continue

    def append_next(self, last: int, kind: EventKind, **facts: Any) -> Event:
        """Write the event after number `last`. Raises Conflict when that one is not the last."""
        facts = {
            "kind": kind,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "by": user(),
            "id": uuid.uuid4().hex,  # tells a retry of this write from another's
            **{name: _open(name, value) for name, value in facts.items()},
        }
        self._store.create(self._key(last + 1), json.dumps(facts, indent=1).encode())
        return Event(last + 1, kind, facts)

    def state(self) -> Ledger:
        """The sum of every event until now. It is the reader's: a later call may change it."""
        ledger = self._ledger
        if ledger is None:
            ledger = snapshots.read(self._store, self._line)
            self._saved = ledger.last
        fresh = self._entries(ledger.last)
        if ledger.last and (not fresh or not _same(fresh.pop(0), ledger)):
            ledger = Ledger()  # restored from a backup, or removed, or erased in part
            self._drop_snapshot()
            fresh = self._entries(0)
        self._ledger = None  # an event that cannot be read leaves no half sum
        before = ledger.last
        for entry in fresh:
            kind = self._add(ledger, entry)
            if kind == "erased" and before:  # what was read before may name what is gone
                self._drop_snapshot()
                return self._anew()
        self._ledger = ledger
        return ledger

    def _anew(self) -> Ledger:
        ledger, self._saved = Ledger(), 0
        for entry in self._entries(0):
            self._add(ledger, entry)
        self._ledger = ledger
        return ledger

    def rewrite(self, number: int, facts: Mapping[str, Any]) -> None:
        """Put other facts in the place of an event. Nothing but an erasure may do this."""
        self._store.write(self._key(number), json.dumps(dict(facts), indent=1).encode())

    @property
    def known(self) -> Ledger:
        """The sum of the events that were read so far, without a request."""
        return self._ledger or Ledger()

    def compact(self) -> None:
        """Leave a snapshot for the next process when it would have much to read.

        One that sums what was erased meanwhile is removed again. An erasure records its end before
        it removes the snapshot, so either it finds this one, or its end is found here.
        """
        if self._ledger is None or self._ledger.last - self._saved < COMPACT:
            return
        last = self._ledger.last
        snapshots.write(self._store, self._line, self._ledger)
        self._saved = last
        since = (self._event(entry.key) for entry in self._entries(last + 1))
        if any(event.kind == "erased" for event in since):
            self._drop_snapshot()

    def _drop_snapshot(self) -> None:
        """Remove one that sums other events; it may name what was erased.

        Whoever may not write leaves that to others.
        """
        self._saved = 0
        with suppress(OSError, BadStore):
            snapshots.delete(self._store, self._line)

    def age(self, number: int) -> float:
        """Seconds since an event was written, by the store's clock. Raises NoSuchObject."""
        return self._store.age(self._key(number))

    def events(self) -> tuple[Event, ...]:
        """Every event, oldest first: one request each, for people and backups."""
        return tuple(self._event(entry.key) for entry in self._entries(0))

    def legible(self) -> tuple[tuple[Event, ...], dict[int, str]]:
        """Every event that can be read, and what is wrong at the numbers of the others.

        For people: a line of which one record is lost or damaged can still be looked at.
        """
        events, wrong = list[Event](), dict[int, str]()
        expected = 1
        for entry in self._entries(0):
            number = _number(entry.key)
            for lost in range(expected, min(number, expected + MANY)):
                wrong[lost] = _lost(self._key(lost))
            if number > expected + MANY:
                wrong[expected + MANY - 1] += f". So are all up to {number - 1}"
            expected = number + 1
            try:
                events.append(self._event(entry.key))
            except ObjectError as error:
                wrong[number] = str(error)
        return tuple(events), wrong

    def latest(self) -> Iterator[Event]:
        """The same, newest first, each read when it is asked for."""
        for entry in reversed(self._entries(0)):
            yield self._event(entry.key)

    def concepts(self) -> tuple[ConceptState, ...]:
        """The state of every concept that has an event, in order of first appearance."""
        return tuple(self.state().concepts.values())

    def concept(self, name: str) -> ConceptState | None:
        """The state of one concept; None when nothing is recorded of it."""
        return self.state().concepts.get(name)

    def next_task(self) -> str:
        """The id of the next accepted upload: t0001, t0002, ..."""
        return f"t{self.state().tasks + 1:04d}"

    def end(self, ended: ConceptState, **facts: Any) -> None:
        """Record a terminal state once: a second, equal ending is the same event."""
        if ended.state not in ENDINGS:
            raise ValueError(f"expected one of {ENDINGS}, found {ended.state!r}")
        while True:
            ledger = self.state()
            now = ledger.concepts.get(ended.name)
            if now is not None and now.state in ENDINGS and now.task == ended.task != "":
                return
            try:
                self.end_next(ledger.last, ended, **facts)
            except Conflict:  # something was recorded since: perhaps this end
                continue
            return

    def end_next(self, last: int, ended: ConceptState, **facts: Any) -> None:
        """Record a terminal state right after event `last`. Raises Conflict."""
        self.append_next(
            last,
            "ended",
            concept=ended.name,
            class_noun=ended.class_noun,
            task=ended.task,
            state=ended.state,
            version=ended.version,
            reasons=list(ended.reasons),
            upload=ended.upload,
            mark=ended.mark,
            **({"findings": [asdict(one) for one in ended.findings]} if ended.findings else {}),
            **facts,
        )

    def _add(self, ledger: Ledger, entry: Entry) -> EventKind:
        event = self._event(entry.key)
        if event.number != ledger.last + 1:
            raise Corrupt(
                f"expected event {self._key(ledger.last + 1)!r}, found {entry.key!r} after the one "
                "before it; restore what is missing from a backup: events are never removed"
            )
        try:
            ledger.add(event, entry.mark)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(entry.key, error) from error
        return event.kind

    def _event(self, key: str) -> Event:
        try:
            facts = json.loads(self._store.read(key).data)
            return Event(_number(key), facts["kind"], facts)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(key, error) from error

    def _last(self) -> int:
        """Number of the last event; what is known of it saves the way from the first."""
        known = self._ledger.last if self._ledger else 0
        entries = self._entries(known) or self._entries(0)
        return _number(entries[-1].key) if entries else 0

    def _entries(self, since: int) -> list[Entry]:
        """Events from number `since` on, in order; what others have put there is none."""
        after = self._key(since - 1) if since > 0 else ""
        found = self._store.list(self._folder, after)
        return [one for one in found if EVENT.fullmatch(one.key.removeprefix(self._folder))]

    def _key(self, number: int) -> str:
        return f"{self._folder}{number:06d}.json"


def _open(name: str, value: Any) -> Any:
    """A fact as it may be read for good: words of errors and of people hold no secret."""
    return redaction.in_data(value) if name in WORDS else value


def user() -> str:
    """Who writes a record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        return f"uid {os.getuid()}"


def _same(entry: Entry, ledger: Ledger) -> bool:
    return (_number(entry.key), entry.mark) == (ledger.last, ledger.mark)


def _number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".json"))


def _lost(key: str) -> str:
    return (
        f"expected an event in {key!r}, found none, and others after it; restore that object from "
        "a backup: events are never removed"
    )


def _damaged(key: str, error: Exception) -> Corrupt:
    return Corrupt(
        f"expected an event as JSON in {key!r}, found something else ({error}); "
        "restore that object from a backup, it is never rewritten"
    )
