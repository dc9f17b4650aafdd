"""Matrices as heat maps, and what became of every concept."""

from dataclasses import dataclass

from markupsafe import Markup

from l2dm.doors import Scores
from l2dm.metrics.bootstrap import Interval
from l2dm.metrics.forgetting import number as finite
from l2dm.reporting import charts, templating
from l2dm.reporting.story import IDENTITY, Kept, Story

# The page stays readable, and of bounded size, however many concepts a line has learned.
LISTED = 40  # lines of a table

_METRICS = (
    (IDENTITY, "Identity similarity", "cosine of the identity encoder to the real pictures"),
    ("identity_accuracy", "Identity accuracy", "share of pictures whose nearest identity is right"),
    ("image_alignment", "Image alignment", "cosine of CLIP image features to the real pictures"),
    ("text_alignment", "Text alignment", "cosine of CLIP features to the prompt, not scaled"),
)


@dataclass(frozen=True)
class _Line:
    """What the table on forgetting says of one concept beside what became of it."""

    kept: Kept
    base: float | None
    peak_row: str  # the task with the highest score; "" for the concept learned last
    drop: str
    bar: Markup


def matrices(story: Story, record: Scores) -> Markup:
    """A heat map per metric."""
    rows, columns = story.rows, story.columns
    learned = frozenset(
        (at, place)
        for at, row in enumerate(rows)
        for place, column in enumerate(columns)
        if row == column + 1
    )
    maps = []
    for metric, title, meaning in _METRICS:
        matrix = record.matrices[metric]
        cells = [[finite(matrix[row][column]) for column in columns] for row in rows]
        low, high = charts.scale_of(
            [value for line in cells for value in line], unit=metric == "identity_accuracy"
        )
        found = charts.HeatMap(
            rows=[row_name(record, row) for row in rows],
            columns=[record.concepts[column].name for column in columns],
            cells=cells,
            new=learned,
            low=low,
            high=high,
        )
        maps.append((title, meaning, charts.heat_map(found)))
    return templating.fill("matrices.html", maps=maps, cut=story.bounds)


def forgetting(story: Story) -> Markup:
    """A line per concept: its numbers, and its drop with an interval."""
    limit = story.limits.get("max_forgetting")
    axis = charts.domain_of([one.interval for one in story.kept], limit)
    chosen = sorted(story.kept, key=lambda one: one.lost, reverse=True)[:LISTED]
    return templating.fill(
        "forgetting.html",
        lines=[_line(story, one, axis, limit) for one in chosen],
        axis=axis,
        limit=limit,
        cut=latest(len(story.kept), LISTED, "concepts"),
    )


def _line(story: Story, one: Kept, axis: tuple[float, float], limit: float | None) -> _Line:
    assert story.scores is not None
    record = story.scores.record
    column = next(i for i, concept in enumerate(record.concepts) if concept.name == one.name)
    return _Line(
        kept=one,
        base=finite(record.matrices[IDENTITY][0][column]),
        peak_row=record.rows[one.drop.row] if one.drop else "",
        drop=_mean(one.interval) if one.interval else "–",
        bar=charts.interval_bar(one.interval, axis, limit) if one.interval else Markup(),
    )


def bounds(interval: Interval | None, digits: int = 3) -> str:
    """The ends of an interval in brackets, after a blank; nothing if there are none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    low, high = (templating.number(end, digits) for end in (interval.low, interval.high))
    return f" [{low}, {high}]"


def _mean(interval: Interval) -> str:
    return f"{templating.number(interval.mean, 3)}{bounds(interval)}"


def latest(count: int, shown: int, what: str) -> str:
    """A sentence where a table is cut short, else nothing."""
    return f" {shown} of {count} {what} are shown." if count > shown else ""


def row_name(record: Scores, row: int) -> str:
    """The base, or the task with the concept it taught."""
    return f"{record.rows[row]} +{record.concepts[row - 1].name}" if row else "base"
