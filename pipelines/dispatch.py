"""The dispatcher: looks at the world and moves every line one step towards "nothing waits".

It is a reconciler, not an event handler: an event is only a reason to look sooner. Whatever died in
between, the next look goes on from the records. Many dispatchers may run: the lease of a line lets
one act, and every decision is a record that is created on condition that nothing was recorded since
it was read.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from components.services.checks import CONCEPT, checking
from components.services.home import Home
from components.services.leases import Lease, Leases
from components.services.promotion import repair
from components.services.records import (
    Event,
    Records,
    Started,
    active,
    attempts,
    standing,
)
from components.services.registry import Registry
from components.services.uploads import Uploads
from components.services.wakeups import Wakeups
from l2dm.errors import Conflict, L2dmError, LineBusy, LostLease
from pipelines.clock import Clock, tell
from pipelines.endings import end_badly, sweep
from pipelines.runs import Look, Runs, run_name
from pipelines.submit import Job

log = logging.getLogger(__name__)

Moved = Literal[
    "idle",
    "busy",
    "waits",
    "started",
    "running",
    "retried",
    "ended",
    "again",
    "broken",
    "checking",
    "unchecked",
]
PATIENCE = 60.0  # seconds that a run may go on after it recorded its end
ANEW = ("StaleParent",)  # the task is begun again from the champion of then


@dataclass(frozen=True)
class Policy:
    """How often an upload is tried, and how many lines learn at once."""

    attempts: int = 3
    backoff: float = 30.0  # seconds before the second try, doubled for each further one
    parallel: int = 1  # runs at once, over all lines


@dataclass(frozen=True)
class Settings:
    """What every run of this dispatcher is given: load name of the base, spec as JSON."""

    base: str
    spec: str


class Dispatcher:
    """One process that reconciles all lines of a state folder."""

    def __init__(
        self,
        home: Home,
        runs: Runs,
        registry: Callable[[], Registry],
        settings: Settings,
        policy: Policy = Policy(),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._runs, self._registry = home, runs, registry
        self._settings, self._policy, self._clock = settings, policy, clock
        self._leases = Leases(home.store)
        self._owner = uuid.uuid4().hex[:12]
        self._held: dict[str, Lease] = {}
        self._lines: dict[str, Records] = {}
        self._inboxes: dict[str, Uploads] = {}
        self._watched: dict[str, Started] = {}  # what we started and have not seen leave
        self._patience: dict[str, float] = {}  # until when a run may take its leave
        self._checks = Clock(
            home,
            runs,
            settings.base,
            settings.spec,
            attempts=policy.attempts,
            backoff=policy.backoff,
            clock=clock,
        )

    def look(self) -> dict[str, Moved]:
        """One pass over all lines, the one that was served longest ago first."""
        for line in tuple(self._held):  # a place that is free now is for whoever is first in line
            self._told(line, self._let_go)
        lines = sorted(self._home.lines(), key=self._last_served)
        return {line: self.reconcile(line) for line in lines}

    def reconcile(self, line: str) -> Moved:
        """Move one line one step. Idempotent; safe in several processes at once.

        Whatever is wrong with one line is told and leaves the others alone.
        """
        return self._told(line, self._reconcile)

    def _told(self, line: str, act: Callable[[str], Moved]) -> Moved:
        try:
            return act(line)
        except (L2dmError, OSError) as error:
            log.error("line %s is left as it is: %s", line, error)
            return "broken"

    def _let_go(self, line: str) -> Moved:
        events = self._records(line).events()
        busy = active(events) is not None or checking(events) is not None
        if not busy and not self._leaves(line):
            self._free(line)
        return "again"

    def _reconcile(self, line: str) -> Moved:
        records = self._records(line)
        events = records.events()
        run, check = active(events), checking(events)
        seed = None
        if run is None and check is None:
            if self._leaves(line):
                return "running"
            self._free(line)  # of the run that ended: the next one gets a number of its own
            seed = self._checks.due(line, events)
            waits = self._uploads(line).waiting(records.concepts())
            if not waits and seed is None:
                return "idle"
            if seed is None and self._later(events, waits[0]):
                return "waits"
            if len(self._held) >= self._policy.parallel:
                return "waits"
        try:
            lease = self._hold(line)
            now = records.events()
            idle = run is None and check is None
            if (active(now), checking(now)) != (run, check) or (idle and now != events):
                return "again"  # somebody acted before we held the line
            events = now  # a run that goes on may have recorded its task
            if check is not None:
                return self._checks.settle(line, check, lease, events, records)
            if seed is not None:  # before an upload: a busy line is checked, too
                self._watched[line] = self._checks.start(line, seed, lease, events, records)
                return "checking"
            if run is None:
                return self._start(line, lease, events, waits[0])
            return self._settle(line, lease, events, run)
        except LineBusy:
            return "busy"
        except (Conflict, LostLease) as error:
            log.warning("line %s: %s", line, error)
            self._held.pop(line, None)
            return "again"

    def _start(self, line: str, lease: Lease, events: Sequence[Event], concept: str) -> Moved:
        digest = self._uploads(line).digest(concept)
        attempt = 1 + attempts(events, concept, digest)
        last = events[-1].number if events else 0
        name = run_name(line, last + 1, concept, digest, attempt)
        self._repair(line)
        self._records(line).append_next(
            last,
            "started",
            concept=concept,
            upload=digest,
            run=name,
            attempt=attempt,
            fence=lease.fence,
        )
        self._run(name, line, concept, lease)
        self._watched[line] = Started(concept, digest, name, attempt, lease.fence)
        return "started"

    def _settle(self, line: str, lease: Lease, events: Sequence[Event], run: Started) -> Moved:
        found = self._runs.look(run.run)
        if found.state == "running":
            if lease.fence == run.fence:
                return "running"
            self._runs.stop(run.run)  # of a dispatcher that was taken for dead: it may not promote
            found = Look("failed", text="the dispatcher that watched it was not heard of")
        if found.state == "absent":  # died between the record and the start
            found = Look("failed", text="it was never started")
        if found.state == "succeeded":
            found = Look("failed", text="it ended without a release")
        return self._failed(line, events, run, found)

    def _failed(self, line: str, events: Sequence[Event], run: Started, look: Look) -> Moved:
        """Refused for good, or tried again later, or failed for good."""
        refused = look.failure is not None and look.failure.kind == "BadUpload"
        if refused or run.attempt >= self._policy.attempts:
            end_badly(self._home, line, run.concept, look.failure, look.text)
            sweep(self._home, line, run.concept)
            self._free(line)
            return "ended"
        step = look.failure.step if look.failure else None
        reasons = look.failure.problems if look.failure else (look.text,)
        self._records(line).append_next(
            events[-1].number,
            "retried",
            concept=run.concept,
            run=run.run,
            step=step,
            reasons=list(reasons),
            anew=look.failure is not None and look.failure.kind in ANEW,
            not_before=self._clock() + self._policy.backoff * 2 ** (run.attempt - 1),
        )
        return "retried"

    def _run(self, name: str, line: str, concept: str, lease: Lease) -> None:
        settings = self._settings
        job = Job(line, concept, settings.base, settings.spec, self._home, lease.fence)
        self._runs.start(name, job)

    def _repair(self, line: str) -> None:
        """Before a task is begun, the aliases say what the records say; else somebody is told."""
        if not standing(self._records(line).events()).champion:
            return
        for one in repair(self._registry(), self._records(line), line):
            log.warning(
                "line %s: alias %s named version %d, the records say %d; set it back",
                line,
                one.alias,
                one.found,
                one.expected,
            )

    def _later(self, events: Sequence[Event], concept: str) -> bool:
        """Whether the upload was given back and its time has not come."""
        for event in reversed(events):
            if event.facts.get("concept") == concept:
                until: Any = event.facts.get("not_before", 0.0)
                return event.kind == "retried" and self._clock() < float(until)
        return False

    def _leaves(self, line: str) -> bool:
        """Whether the run whose end is recorded has still to leave; its scratch is swept then."""
        run = self._watched.get(line)
        if run is None:
            return False
        if self._runs.look(run.run).state == "running":
            if self._clock() < self._patience.setdefault(run.run, self._clock() + PATIENCE):
                return True
            self._runs.stop(run.run)
        sweep(self._home, line, run.concept)
        if run.concept == CONCEPT:
            tell(line, self._records(line).events())
        del self._watched[line]
        self._patience.pop(run.run, None)
        return False

    def _hold(self, line: str) -> Lease:
        """Our lease of the line, renewed, or a new one. Raises LineBusy, LostLease."""
        held = self._held.get(line)
        lease = self._leases.renew(held) if held else self._leases.take(line, self._owner)
        self._held[line] = lease
        return lease

    def _free(self, line: str) -> None:
        lease = self._held.pop(line, None)
        if lease is not None:
            self._leases.release(lease)

    def _uploads(self, line: str) -> Uploads:
        """Kept over passes, because it knows the digests of what it saw."""
        return self._inboxes.setdefault(line, Uploads(self._home.store, line))

    def _records(self, line: str) -> Records:
        """Kept over passes, because what was read of them never changes."""
        return self._lines.setdefault(line, Records(self._home.store, line))

    def _last_served(self, line: str) -> tuple[str, str]:
        try:
            events = self._records(line).events()
        except (L2dmError, OSError):  # reconcile says what is wrong
            return ("", line)
        starts = [event.facts["at"] for event in events if event.kind == "started"]
        return (starts[-1] if starts else "", line)


class Looks(Protocol):
    """What `follow` asks of a dispatcher, or of whoever stands before one."""

    def look(self) -> dict[str, Moved]:
        """See Dispatcher."""
        ...

    def reconcile(self, line: str) -> Moved:
        """See Dispatcher."""
        ...


def follow(
    dispatcher: Looks, wakeups: Wakeups, every: float, *, once: bool
) -> Iterator[tuple[str, Moved]]:
    """Look at all lines every so many seconds, at woken ones at once; each change of a line.

    once: end when nothing waits or runs. A line that an event names and nobody knows is nothing.
    """
    known: dict[str, Moved] = {}
    scan, settled = 0.0, False
    while True:
        left = scan - time.monotonic()
        woken = wakeups.wait(left) & frozenset(known) if left > 0 else frozenset[str]()
        if woken:
            moves = {line: dispatcher.reconcile(line) for line in sorted(woken)}
        elif scan > time.monotonic():
            continue
        else:
            moves, scan = dispatcher.look(), time.monotonic() + every
        yield from ((line, now) for line, now in moves.items() if known.get(line) != now)
        known |= moves
        over = set(known.values())
        if once and (over <= {"idle"} or (settled and over <= {"idle", "broken"})):
            return
        settled = over <= {"idle", "broken"}  # broken twice in a row: it will not mend itself
