"""What a dispatcher tells Prometheus: `GET /metrics` of `l2dm dispatch --listen`.

A scrape asks nothing of the store: it shows what the dispatcher's last look saw. An idle line costs
nothing besides that look, whose records are shared. Any other is counted when something was
recorded of it or its look ended otherwise than before, and else once in a while, each line at
another time, because uploads come without a record.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from components.services.line.ledger import Ledger, State
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from l2dm.doors import QUESTIONS, closed_by
from l2dm.errors import L2dmError
from pipelines.dispatcher.dispatcher import Moved
from pipelines.dispatcher.loop import Looks

PATH = "/metrics"
RECOUNT = 600.0  # seconds after which a line that is not idle is counted again
RUNS: tuple[Moved, ...] = ("started", "running", "checking")


class Shares(Looks, Protocol):
    """A dispatcher that shows what it keeps of a line."""

    def set_aside(self) -> tuple[str, ...]:
        """See Dispatcher."""
        ...

    def kept(self, line: str) -> tuple[Records, Uploads]:
        """See Dispatcher."""
        ...


@dataclass(frozen=True)
class Seen:
    """A line at a time, and since when all that holds.

    event: number and mark of the last event that was counted. again: when it is counted again.
    """

    moved: Moved
    counts: "Counts"
    changed: float  # seconds since 1970
    event: tuple[int, str]
    again: float

    def same(self, other: "Seen") -> bool:
        """Whether nothing moved between the two."""
        return (self.moved, self.counts) == (other.moved, other.counts)


@dataclass(frozen=True)
class Counts:
    """Uploads that wait, concepts by state, and what the champion's last check found ("": none).

    closed: how many of the concepts that are held the gate closed for each of its questions.

    checked: when a check last found something. awaited: the first instant of the line's clock after
    that. Both in seconds since 1970, 0: there is none; of a line without clock or champion.
    """

    waiting: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    closed: Mapping[str, int] = field(default_factory=dict)
    health: str = ""
    checked: float = 0.0
    awaited: float = 0.0


@dataclass(frozen=True)
class LastLook:
    """What the next scrape shows; replaced as a whole, because scrapes come in other threads."""

    lines: Mapping[str, Seen] = field(default_factory=dict)
    looked: float = 0.0  # seconds since 1970; 0: never
    seconds: float = 0.0  # that the look took


class Measured:
    """A dispatcher that is looked over the shoulder. Use it in the other's place."""

    def __init__(self, dispatcher: Shares, clock: Callable[[], float] = time.time) -> None:
        self._dispatcher, self._clock = dispatcher, clock
        self._now = LastLook()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def passing(self) -> Iterator[tuple[str, Moved] | None]:
        """See Looks."""
        began, lines = self._clock(), dict[str, Seen]()
        for move in self._dispatcher.passing():
            if move:
                lines[move[0]] = self._seen(*move)
            yield move
        ended = self._clock()
        self._now = LastLook(lines, ended, ended - began)

    def look(self) -> dict[str, Moved]:
        """One whole pass."""
        return dict(move for move in self.passing() if move)

    def reconcile(self, line: str, *, whole: bool = False) -> Moved:
        """See Looks."""
        moved = self._dispatcher.reconcile(line, whole=whole)
        now = self._now
        lines = {**now.lines, line: self._seen(line, moved)}
        self._now = LastLook(lines, now.looked, now.seconds)
        return moved

    def lines(self) -> frozenset[str]:
        """See Looks."""
        return self._dispatcher.lines()

    def text(self) -> str:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client: the last look as metrics."""
        now = self._now
        yield _gauge(
            "last_look_timestamp_seconds", "When all lines were last looked at", now.looked
        )
        yield _gauge("look_seconds", "How long that look took", now.seconds)
        runs = sum(seen.moved in RUNS for seen in now.lines.values())
        yield _gauge("runs", "Runs that this dispatcher watches", runs)
        yield _gauge(
            "inbox_set_aside",
            "Folders in inboxes whose names no line or concept can have",
            len(self._dispatcher.set_aside()),
        )
        yield _lines(now.lines)
        yield _concepts(now.lines)
        yield _closed(now.lines)
        yield _by_line(
            "uploads_open", "Uploads without an end", now, lambda seen: seen.counts.waiting
        )
        yield _by_line(
            "line_broken", "1: it cannot be looked at", now, lambda seen: seen.moved == "broken"
        )
        yield _by_line(
            "line_changed_timestamp_seconds",
            "When something of the line last changed",
            now,
            lambda seen: seen.changed,
        )
        yield _by_line(
            "champion_regressed",
            "1: the champion's last check found a regression",
            now,
            lambda seen: seen.counts.health == "regressed",
        )
        yield from _checks(now)

    def _seen(self, line: str, moved: Moved) -> Seen:
        now, before = self._clock(), self._now.lines.get(line)
        records, uploads = self._dispatcher.kept(line)
        settled = before is not None and (moved, _event(records)) == (before.moved, before.event)
        if before is not None and settled and (moved == "idle" or now < before.again):
            return before
        counts = self._count(moved, records, uploads) or (before.counts if before else Counts())
        seen = Seen(moved, counts, now, _event(records), _next(line, now))
        if before is not None and seen.same(before):
            return replace(seen, changed=before.changed)
        return seen

    def _count(self, moved: Moved, records: Records, uploads: Uploads) -> Counts | None:
        """None where the line cannot be read, which the dispatcher has told."""
        if moved == "idle":  # all was read a moment ago, and nothing waits
            return _counts(records.known, 0)
        try:
            ledger = records.state()
            return _counts(ledger, len(uploads.waiting([*ledger.concepts.values()])))
        except (L2dmError, OSError):
            return None


def _counts(ledger: Ledger, waiting: int) -> Counts:
    states = [concept.state for concept in ledger.concepts.values()]
    closed = [
        question
        for concept in ledger.concepts.values()
        if concept.state == "held"
        for question in closed_by(concept.findings)
    ]
    champion = ledger.standing.champion
    last = ledger.checks.found.get(champion)
    return Counts(
        waiting,
        {state: states.count(state) for state in get_args(State)},
        {question: closed.count(question) for question in QUESTIONS},
        last.health if last else "",
        ledger.checks.found_last(),
        ledger.checks.awaited(champion),
    )


def _event(records: Records) -> tuple[int, str]:
    """What tells whether something was recorded since, without a request."""
    return (records.known.last, records.known.mark)


def _next(line: str, now: float) -> float:
    """A line's own moment in every period, so that lines are not counted all in one look."""
    moment = zlib.crc32(line.encode()) / 2**32 * RECOUNT
    return now + RECOUNT - (now - moment) % RECOUNT


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"l2dm_{name}", help, value=value)


def _by_line(name: str, help: str, now: LastLook, value: Callable[[Seen], float]) -> Metric:
    family = GaugeMetricFamily(f"l2dm_{name}", help, labels=["line"])
    for line, seen in now.lines.items():
        family.add_metric([line], float(value(seen)))
    return family


def _checks(now: LastLook) -> Iterator[Metric]:
    """Of lines that have a clock."""
    clocks = {line: seen for line, seen in now.lines.items() if seen.counts.awaited}
    now = replace(now, lines=clocks)
    yield _by_line(
        "check_found_timestamp_seconds",
        "When a check of a line with a clock last found something; 0: never",
        now,
        lambda seen: seen.counts.checked,
    )
    yield _by_line(
        "check_due_timestamp_seconds",
        "When the check after that is due; in the past: it is late",
        now,
        lambda seen: seen.counts.awaited,
    )


def _lines(lines: Mapping[str, Seen]) -> Metric:
    family = GaugeMetricFamily("l2dm_lines", "Lines by how the last look ended", labels=["moved"])
    moves = [seen.moved for seen in lines.values()]
    for moved in get_args(Moved):
        family.add_metric([moved], moves.count(moved))
    return family


def _concepts(lines: Mapping[str, Seen]) -> Metric:
    family = GaugeMetricFamily("l2dm_concepts", "Concepts by state", labels=["line", "state"])
    for line, seen in lines.items():
        for state, count in seen.counts.states.items():
            family.add_metric([line, state], count)
    return family


def _closed(lines: Mapping[str, Seen]) -> Metric:
    help = "Concepts that are held, by the question that closed the gate"
    family = GaugeMetricFamily("l2dm_gate_closed", help, labels=["line", "question"])
    for line, seen in lines.items():
        for question, count in seen.counts.closed.items():
            family.add_metric([line, question], count)
    return family
