"""The dispatcher: looks at the world and moves every line one step towards "nothing waits".

It is a reconciler, not an event handler: an event is only a reason to look sooner. Whatever died in
between, the next look goes on from the records. Many dispatchers may run: the lease of a line lets
one act, and every decision is a record that is created on condition that nothing was recorded since
it was read.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

from components.runtime.recipes import learned_with
from components.services.line.checks import CONCEPT as CHECK
from components.services.line.leases import Keeper, Lease, Leases
from components.services.line.ledger import Ledger, Started
from components.services.line.recipe import Asked
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry
from l2dm import escape
from l2dm.errors import (
    BadBase,
    BadSpec,
    Conflict,
    L2dmError,
    LineBusy,
    LostLease,
    TrackingFailed,
    words,
)
from l2dm.files.concept_json import NAMED
from pipelines.dispatcher import repair, retries
from pipelines.dispatcher.alias_drift import AliasDrift
from pipelines.dispatcher.due_checks import CheckRetries, DueChecks
from pipelines.dispatcher.end_upload import (
    cancelled,
    close_run,
    end_as_cancelled,
    end_badly,
    end_cancelled,
    give_back,
    land,
    sweep,
)
from pipelines.dispatcher.inbox_polling import Inboxes
from pipelines.dispatcher.retries import Retries
from pipelines.dispatcher.watched_runs import WatchedRuns
from pipelines.places.run_here import Job
from pipelines.places.runs import Look, Runs, Starter, run_name

log = logging.getLogger(__name__)

Moved = Literal[
    "idle", "busy", "waits", "started", "running", "retried", "ended", "again", "broken",
    "checking", "unchecked",
]  # fmt: skip
ANEW = ("StaleParent",)  # the task is begun again from the champion of then
GLANCES = 16  # lines that are looked at together; most of that time is waiting for the store
REMIND = 3600.0  # seconds before what is wrong with a line is told again, if it still is
DEAF = 15.0  # seconds before a registry that did not answer is asked again


@dataclass(frozen=True)
class DispatchPolicy:
    """How often an upload is tried, how many lines learn at once, and what is looked at seldom.

    Seconds. backoff: before the second try, doubled for each further one. whole: between two whole
    listings of a line's inbox, which find what was put over an upload that has ended, and halves.
    half: after its last file, until an upload without concept.json is swept. aliases: between two
    comparisons of every alias with the records.
    """

    attempts: int = 3
    backoff: float = 30.0
    parallel: int = 1  # runs at once of this dispatcher, over all lines
    whole: float = 600.0
    half: float = repair.HALF
    aliases: float = 60.0


@dataclass(frozen=True)
class RunSettings:
    """What every run of this dispatcher is given: load name of the base, spec as JSON.

    asked: the base and the settings that somebody named; then every line learns as it keeps, and
    what it cannot follow is refused before any work. None: base and spec are taken as they are.
    """

    base: str
    spec: str
    asked: Asked | None = None


class Dispatcher:
    """One process that reconciles all lines of a state folder."""

    def __init__(
        self,
        home: Home,
        runs: Runs,
        registry: Callable[[], Registry],
        settings: RunSettings,
        policy: DispatchPolicy = DispatchPolicy(),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._runs, self._registry = home, runs, registry
        self._settings, self._policy, self._clock = settings, policy, clock
        self._keeper = Keeper(Leases(home.store))
        self._owner = uuid.uuid4().hex[:12]
        self._locks: dict[str, threading.Lock] = {}
        self._lines: dict[str, Records] = {}
        self._watched = WatchedRuns(home, runs, clock)
        self._retries = Retries(clock)
        self._inboxes = Inboxes(home, policy.whole, policy.half, clock, self._sweep_halves)
        self._aliases = AliasDrift(registry, policy.aliases)
        self._set_aside: tuple[str, ...] = ()
        self._wrong: dict[str, tuple[str, float]] = {}  # told of lines left as they are, and when
        self._deaf = -float("inf")
        self._starter = Starter(runs)
        again = CheckRetries(policy.attempts, policy.backoff)
        self._checks = DueChecks(home, runs, settings.base, settings.spec, again, clock=clock)

    def look(self) -> dict[str, Moved]:
        """One pass over all lines, the one that was served longest ago first."""
        return dict(one for one in self.passing() if one)

    def passing(self) -> Iterator[tuple[str, Moved] | None]:
        """The same, each line as it was looked at: idle ones first, many at a time.

        None: nothing to tell, but a moment to do something else.
        """
        for line in self._keeper.held():  # a place that is free now is for whoever is first in line
            self._told(line, self._let_go)
            yield None
        names, left = self._home.names(), []
        lines = names.lines
        with ThreadPoolExecutor(max(1, min(GLANCES, len(lines)))) as pool:
            for line, idle in zip(lines, pool.map(self._glance, lines), strict=True):
                self._keeper.goes_on()
                if idle:
                    self._wrong.pop(line, None)
                    yield line, "idle"
                else:
                    left.append(line)
        for line in sorted(left, key=self._last_served):
            yield line, self.reconcile(line)
        self._tell_set_aside(names.set_aside)
        known = {line: self._records(line).known for line in lines}
        for line in self._aliases.wrong(known) if time.monotonic() > self._deaf else ():
            self._told(line, self._set_back)

    def reconcile(self, line: str, *, whole: bool = False) -> Moved:
        """Move one line one step. Idempotent; safe in several processes at once.

        Whatever is wrong with one line is told, not at every look, and leaves the others alone.
        whole: list its inbox whole, because something about it is known to have changed.
        """
        if whole:
            self._inboxes.wake(line)
        moved = self._told(line, self._reconcile)
        if moved not in ("broken", "waits", "busy"):  # it goes on: the same again would be news
            self._wrong.pop(line, None)
        return moved

    def lines(self) -> frozenset[str]:
        """Lines that have records or an upload. Raises BadStore."""
        return frozenset(self._home.lines())

    def set_aside(self) -> tuple[str, ...]:
        """Keys of inbox folders that no line or concept can be called, as they were last seen."""
        return self._set_aside

    def kept(self, line: str) -> tuple[Records, Uploads]:
        """What was read of a line, for whoever looks over our shoulder."""
        return self._records(line), self._inboxes.of(line)

    def __enter__(self) -> Self:
        """From now on leases are renewed however long a look takes."""
        self._keeper.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the heartbeat. Leases expire, but for those of runs that go on without us."""
        self._keeper.close()
        if self._runs.lasting:
            self._keeper.leave()

    def _tell_set_aside(self, names: tuple[str, ...]) -> None:
        """Keep them for whoever asks; a new one is told once."""
        found = {*names, *self._inboxes.set_aside()}
        for key in sorted(found.difference(self._set_aside)):
            log.warning("%s is set aside: expected a folder named with %s", escape.line(key), NAMED)
        self._set_aside = tuple(sorted(found))

    def _told(self, line: str, act: Callable[[str], Moved]) -> Moved:
        self._keeper.goes_on()
        try:
            with self._lock(line):
                return act(line)
        except (L2dmError, OSError) as error:
            if isinstance(error, TrackingFailed):
                self._deaf = time.monotonic() + DEAF
            if self._is_news(line, error):
                log.error("line %s is left as it is: %s", line, words(error))
        except Exception as error:  # of ours, on what nobody thought of: the others must go on
            if self._is_news(line, error):
                log.exception("line %s is left as it is", line)
        return "broken"

    def _is_news(self, line: str, error: Exception) -> bool:
        """Whether this is to be told of a line: it was not at the last look, or long ago."""
        told, at = self._wrong.get(line, ("", 0.0))
        if told == _words(error) and self._clock() < at + REMIND:
            return False
        self._wrong[line] = _words(error), self._clock()
        return True

    def _glance(self, line: str) -> bool:
        """Whether a line is idle: two requests. What else there is, `reconcile` finds and tells."""
        with self._lock(line):
            if line in self._watched or self._keeper.holds(line):
                return False
            try:
                ledger = self._records(line).state()
                self._records(line).compact()
                if ledger.active or ledger.checks.running or self._inboxes.is_due(line):
                    return False
                if self._checks.due(line, ledger) is not None:
                    return False
                return not self._inboxes.of(line).open([*ledger.concepts.values()])
            except Exception:  # noqa: BLE001 - whatever it is, `reconcile` meets it and tells
                return False

    def _let_go(self, line: str) -> Moved:
        ledger = self._records(line).state()
        busy = ledger.active is not None or ledger.checks.running is not None
        if not busy and not self._watched.leaves(line, self._records(line).state):
            self._keeper.free(line)
        return "again"

    def _reconcile(self, line: str) -> Moved:
        ledger = self._records(line).state()
        before = (ledger.active, ledger.checks.running)
        run = ledger.active or ledger.checks.running
        self._watched.end_superseded(line, run)
        if run is None:
            return self._begin(line, ledger)

        def settle(lease: Lease, now: Ledger) -> Moved:
            if (now.active, now.checks.running) != before:
                return "again"  # somebody acted before we held the line
            if now.active is not None:  # it may have recorded its task meanwhile
                return self._settle(line, lease, now, now.active)
            return self._settle_check(line, lease, now)

        return self._holding(line, settle, run.fence if self._runs.lasting else 0)

    def _begin(self, line: str, ledger: Ledger) -> Moved:
        """What a line without a run does next: a check that is due, or its oldest upload."""
        if self._watched.leaves(line, self._records(line).state):
            return "running"
        self._keeper.free(line)  # of the run that ended: the next one gets another number
        seed, last = self._checks.due(line, ledger), ledger.last
        waits = self._inboxes.waiting(line, ledger)
        if not waits and seed is None:
            return "idle"
        unwanted = cancelled(self._inboxes.of(line), ledger, waits) if waits else {}
        later = not waits or self._retries.lasts(line, waits[0], self._records(line))
        if ledger.checks.last and not later:
            seed = None  # in turns: a check that is always due must not keep uploads waiting
        if not unwanted and ((seed is None and later) or self._is_full()):
            return "waits"

        def begin(lease: Lease, now: Ledger) -> Moved:
            if now.last != last:
                return "again"  # somebody acted before we held the line
            if unwanted:
                end_cancelled(self._home, line, unwanted, last)
                self._keeper.free(line)
                return "ended"
            if seed is not None:  # before an upload: a busy line is checked, too
                return self._start_check(line, seed, lease, now)
            return self._start(line, lease, waits[0])

        try:
            return self._holding(line, begin)
        except (L2dmError, OSError):
            # nothing learns: whoever is to mend the line must be able to hold it
            with suppress(L2dmError, OSError):
                self._keeper.free(line)
            raise

    def _holding(self, line: str, act: Callable[[Lease, Ledger], Moved], run: int = 0) -> Moved:
        """Act under the line's lease on what its events say then. run: see Leases.take."""
        try:
            lease = self._keeper.hold(line, self._owner, run)
            return act(lease, self._records(line).state())
        except LineBusy:
            return "busy"
        except (Conflict, LostLease) as error:
            log.warning("line %s: %s", line, error)
            if isinstance(error, LostLease):  # else it is ours still: the next look acts
                self._keeper.forget(line)
            return "again"

    def _start_check(self, line: str, seed: int, lease: Lease, ledger: Ledger) -> Moved:
        run = self._checks.start(line, seed, lease, ledger, self._records(line))
        if not isinstance(run, Started):  # given back: nothing is under way
            self._keeper.free(line)
            return run
        self._watched.add(line, run)
        return "checking"

    def _start(self, line: str, lease: Lease, concept: str) -> Moved:
        if time.monotonic() < self._deaf:
            self._keeper.free(line)
            return "waits"
        found, records = self._inboxes.of(line).commitment(concept), self._records(line)
        base, spec = self._learned_with(line, concept, records)
        mended = repair.mend(self._home, self._registry, records, line)
        ledger = records.state() if mended else records.known
        if ledger.active or not found.digest:  # withdrawn since
            return "again"
        attempt = 1 + ledger.attempts(concept, found.digest)
        name = run_name(line, ledger.last + 1, concept, found.digest, attempt)
        records.append_next(
            ledger.last,
            "started",
            concept=concept,
            upload=found.digest,
            mark=found.mark,
            run=name,
            attempt=attempt,
            fence=lease.fence,
        )
        self._starter.start(name, Job(line, concept, base, spec, self._home, lease.fence))
        self._watched.add(line, Started(concept, found.digest, name, attempt, lease.fence))
        return "started"

    def _learned_with(self, line: str, concept: str, records: Records) -> tuple[str, str]:
        """Base and spec of a line's next run. Raises BadSpec, BadBase where it keeps others.

        Then the upload waits, and its state says why.
        """
        given = self._settings
        if given.asked is None:
            return given.base, given.spec
        try:
            return learned_with(self._home, line, records, given.asked, self._registry)
        except (BadSpec, BadBase) as error:
            told, _ = self._wrong.get(line, ("", 0.0))
            state = records.state().concepts.get(concept)
            # else it says so since it was told, or another dispatcher's reason, which stays
            if told != _words(error) or state is None or not state.reasons:
                give_back(records, concept, error.problems)
            raise

    def _settle(self, line: str, lease: Lease, ledger: Ledger, run: Started) -> Moved:
        found, wanted = self._runs.look(run.run), ledger.concepts[run.concept].cancelled
        if found.state == "running":
            if lease.fence == run.fence and not wanted:
                self._watched.add(line, run)  # also where another dispatcher started it
                return "running"
            self._runs.stop(run.run)  # of a dispatcher that was taken for dead: it may not promote
            found = Look("failed", text="the dispatcher that watched it was not heard of")
        if found.state == "absent":
            found = Look("failed", self._starter.why_absent(line, run.run))
        if found.state == "succeeded":
            found = Look("failed", text="it ended without a release")
        task = ledger.concepts[run.concept].task
        if task and ledger.version_of(task):  # it died after its promotion: all but its end is done
            if repair.mend(self._home, self._registry, self._records(line), line):
                return "again"
            land(self._home, self._registry(), self._records(line), line, run.concept)
            return self._over(line, run)
        if wanted:
            end_as_cancelled(self._home, line, run.concept, wanted, after=ledger.last)
            return self._over(line, run)
        return self._failed(line, ledger.last, run, found)

    def _settle_check(self, line: str, lease: Lease, ledger: Ledger) -> Moved:
        run = ledger.checks.running
        assert run is not None
        moved = self._checks.settle(line, lease, ledger, self._records(line))
        if moved == "checking":
            self._watched.add(line, Started(CHECK, "", run.run, run.attempt, run.fence))
        return moved

    def _failed(self, line: str, last: int, run: Started, look: Look) -> Moved:
        """Refused for good, or tried again later, or failed for good."""
        kind = look.failure.kind if look.failure else ""
        task = self._records(line).known.concepts[run.concept].task
        ours = look.failure is not None and look.failure.of_the_house  # then it waits, however long
        if kind == "BadUpload" or (run.attempt >= self._policy.attempts and not ours):
            end_badly(self._home, line, run.concept, look.failure, look.text, after=last)
            return self._over(line, run)
        event = self._records(line).append_next(
            last,
            "retried",
            concept=run.concept,
            run=run.run,
            step=look.failure.step if look.failure else None,
            reasons=list(look.failure.problems if look.failure else (look.text,)),
            anew=kind in ANEW,
            pause=retries.seconds(self._policy.backoff, run.attempt),
        )
        if kind in ANEW:  # it comes back under another name
            close_run(self._home, line, task, "FAILED")
        self._retries.begin(line, event)
        return "retried"

    def _over(self, line: str, run: Started) -> Moved:
        sweep(self._home, line, run.concept)
        self._keeper.free(line)
        return "ended"

    def _sweep_halves(self, line: str) -> None:
        try:
            self._keeper.hold(line, self._owner)
        except (LineBusy, LostLease):  # another one's line: it sweeps
            return
        try:
            repair.sweep_halves(self._home, self._records(line), line, self._policy.half)
        finally:
            self._keeper.free(line)

    def _is_full(self) -> bool:
        return len(self._keeper.held()) >= self._policy.parallel

    def _set_back(self, line: str) -> Moved:
        records = self._records(line)
        # a run is under way, here or with a dispatcher to come: the line's next task mends first
        if self._keeper.holds(line) or records.state().active is not None:
            return "busy"
        try:
            self._keeper.hold(line, self._owner)
        except (LineBusy, LostLease):
            return "busy"
        try:
            if records.state().active is None:
                repair.mend(self._home, self._registry, records, line)
        finally:
            self._keeper.free(line)
        return "again"

    def _records(self, line: str) -> Records:
        """Kept over passes, because what was read of them never changes."""
        return self._lines.setdefault(line, Records(self._home.store, line))

    def _lock(self, line: str) -> threading.Lock:
        return self._locks.setdefault(line, threading.Lock())

    def _last_served(self, line: str) -> tuple[str, str]:
        return (self._records(line).known.served, line)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
