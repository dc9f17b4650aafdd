"""What a line's history says in numbers: who speaks for it, drops, intervals, averages.

Everything here is computed once from the doors; `report.py` only writes it down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from l2dm.doors import Adapter, Concept, Drift, Measurement, Release, Scores
from l2dm.evaluation import sheets
from l2dm.files import door_files
from l2dm.files.manifest import Door, read
from l2dm.metrics import forgetting
from l2dm.metrics.bootstrap import Interval, hierarchical_interval, paired_interval

IDENTITY = "identity_similarity"

# The page stays readable, and of bounded size, however many concepts a line has learned.
ROWS = sheets.ROWS  # latest tasks in matrices, pictures and curves
CONCEPTS = 12  # concepts in matrices and pictures: those that lost most, and the latest
RESAMPLES = 1000


@dataclass(frozen=True)
class ReportEntry:
    """One version of a line: its registry number, its release folder and the aliases on it."""

    version: int
    release: Door[Release]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What became of one concept. `drop` and `interval` are None for the one learned last."""

    name: str
    class_noun: str
    learned: float | None
    now: float | None
    ceiling: float | None
    drop: forgetting.Drop | None
    interval: Interval | None
    relative: float | None

    @property
    def lost(self) -> float:
        """For sorting: the drop; nothing for the concept learned last."""
        return self.interval.mean if self.interval else float("-inf")


@dataclass(frozen=True)
class Story:
    """A line at one moment. `subject` speaks for it: see `subject_of`; None on an empty line."""

    line: str
    history: tuple[ReportEntry, ...]
    subject: ReportEntry | None
    scores: Door[Scores] | None
    kept: tuple[Kept, ...] = ()
    summary: Mapping[str, float | None] | None = None
    identity: Interval | None = None
    forgetting: Interval | None = None

    @property
    def champion(self) -> ReportEntry | None:
        """The version that serves, if any."""
        return next((one for one in self.history if "champion" in one.aliases), None)

    @property
    def knows(self) -> tuple[Concept, ...]:
        """What the champion knows."""
        if self.champion is None:
            return ()
        return read(self.champion.release.path(door_files.ADAPTER), Adapter).record.concepts

    @property
    def taken_back(self) -> tuple[ReportEntry, ...]:
        """Versions whose gate was open and that the champion was not learned from: rolled back."""
        if self.champion is None:
            return ()
        by_number = {entry.version: entry for entry in self.history}
        number, descent = self.champion.version, set[int]()
        while number in by_number:
            descent.add(number)
            number = by_number[number].release.record.parent_version
        # below `number` the history may lack versions, so nobody can say of them
        return tuple(
            entry
            for entry in self.history
            if entry.release.record.verdict.open
            and entry.version > number
            and entry.version not in descent
        )

    @property
    def lost(self) -> tuple[ReportEntry, ...]:
        """Those of them whose concept the champion does not know any more."""
        known = {concept.name for concept in self.knows}
        return tuple(
            entry
            for entry in self.taken_back
            if entry.release.record.concept and entry.release.record.concept.name not in known
        )

    @property
    def limits(self) -> Mapping[str, float]:
        """The gate's thresholds that the subject was judged by; empty if it does not say."""
        gate: Mapping[str, float] = (
            self.subject.release.spec.get("gate", {}) if self.subject else {}
        )
        return gate

    @property
    def rows(self) -> tuple[int, ...]:
        """Numbers of the rows that are shown: the base's and the latest."""
        count = len(self.scores.record.rows) if self.scores else 0
        return (0, *range(max(1, count - ROWS), count)) if count else ()

    @property
    def columns(self) -> tuple[int, ...]:
        """Numbers of the concepts that are shown, in the order of learning."""
        order = range(len(self.kept))
        if len(order) <= CONCEPTS:
            return tuple(order)
        newest = order[-CONCEPTS // 2 :]
        lost = sorted(order[: newest[0]], key=lambda at: self.kept[at].lost, reverse=True)
        return tuple(sorted((*lost[: CONCEPTS - len(newest)], *newest)))

    @property
    def bounds(self) -> str:
        """A sentence on what is left out, or nothing."""
        count, tasks = len(self.kept), len(self.scores.record.rows) - 1 if self.scores else 0
        cut = []
        if count > CONCEPTS:
            cut.append(f"{CONCEPTS} of {count} concepts (those that lost most, and the latest)")
        if tasks > ROWS:
            cut.append(f"the latest {ROWS} of {tasks} tasks")
        return f" Shown: {' and '.join(cut)}." if cut else ""

    def last_drift(self) -> tuple[Drift, ...]:
        """Drift of the subject's own row."""
        if self.scores is None:
            return ()
        record = self.scores.record
        return tuple(one for one in record.drift if one.row == record.rows[-1])


def tell(line: str, history: Sequence[ReportEntry]) -> Story:
    """Read the doors of a line's versions and work out what they say. Raises BadDoor."""
    ordered = tuple(
        sorted((one for one in history if one.release.record.task), key=lambda one: one.version)
    )
    subject = subject_of(ordered)
    if subject is None:
        return Story(line, ordered, None, None)
    scores = read(subject.release.path(door_files.SCORES), Scores)
    if not scores.record.concepts:  # the only one was taken out
        return Story(line, ordered, None, None)
    measured = door_files.read_measurements(scores)
    kept = _kept(scores.record, measured)
    accuracy = forgetting.by_cell(measured, "identity_accuracy")
    last = [
        list(accuracy.get((scores.record.rows[-1], one.name), {}).values())
        for one in scores.record.concepts
    ]
    pairs = [one.drop for one in kept if one.drop is not None and one.drop.before]
    lost = [_differences(drop) for drop in pairs]
    return Story(
        line=line,
        history=ordered,
        subject=subject,
        scores=scores,
        kept=kept,
        summary=_summary(scores.record),
        identity=_hierarchical([group for group in last if group]),
        forgetting=_hierarchical(lost),
    )


def subject_of(history: Sequence[ReportEntry]) -> ReportEntry | None:
    """Whose matrices are shown: a challenger that began at the champion, else the champion.

    Without a champion the newest version speaks. history: oldest first.
    """
    champion = next((one for one in history if "champion" in one.aliases), None)
    start = champion.version if champion else 0
    challengers = [
        one
        for one in history
        if "challenger" in one.aliases
        and one.version > start
        and one.release.record.parent_version == start
    ]
    newest = history[-1] if history else None
    return challengers[-1] if challengers else champion or newest


def curve_of(entry: ReportEntry) -> door_files.LossCurve:
    """Loss terms per optimizer step; empty when the adapter was not trained step by step."""
    return door_files.read_curve(entry.release.path(door_files.ADAPTER))


def method_of(entry: ReportEntry) -> str:
    """The method that learned a version."""
    return read(entry.release.path(door_files.ADAPTER), Adapter).record.method


def _kept(record: Scores, measured: Sequence[Measurement]) -> tuple[Kept, ...]:
    matrix = record.matrices[IDENTITY]
    names = [one.name for one in record.concepts]
    cells = forgetting.by_cell(measured, IDENTITY)
    drops = forgetting.drops(matrix, record.rows, names, cells)
    ceilings = record.ceilings.get(IDENTITY, (None,) * len(names))
    return tuple(
        Kept(
            name=concept.name,
            class_noun=concept.class_noun,
            learned=forgetting.number(matrix[index + 1][index]),
            now=forgetting.number(matrix[-1][index]),
            ceiling=ceilings[index],
            drop=drops[index],
            interval=_interval(drops[index]),
            relative=forgetting.relative_drop(matrix, index),
        )
        for index, concept in enumerate(record.concepts)
    )


def _summary(record: Scores) -> Mapping[str, float | None]:
    """Averages over the matrices; None where the task is the first, or a number is missing."""
    similarity, accuracy = record.matrices[IDENTITY], record.matrices["identity_accuracy"]
    return {
        "final average": forgetting.final_average(accuracy),
        "learning accuracy": forgetting.learning_accuracy(accuracy),
        "average incremental": forgetting.average_incremental(accuracy),
        "forgetting": forgetting.forgetting(similarity),
        "backward transfer": forgetting.backward_transfer(similarity),
        "relative forgetting": forgetting.relative_forgetting(similarity),
    }


def _interval(drop: forgetting.Drop | None) -> Interval | None:
    if drop is None:
        return None
    if not drop.before:
        return Interval(drop.amount, None, None)
    return paired_interval(drop.before, drop.after, generator=_seeded(), resamples=RESAMPLES)


def _hierarchical(groups: Sequence[Sequence[float]]) -> Interval | None:
    if not groups:
        return None
    return hierarchical_interval(groups, generator=_seeded(), resamples=RESAMPLES)


def _differences(drop: forgetting.Drop) -> list[float]:
    return [first - second for first, second in zip(drop.before, drop.after, strict=True)]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)  # the same page from the same numbers
