"""Matrices as heat maps, and what became of every concept."""

from l2dm.doors import Scores
from l2dm.metrics.bootstrap import Interval
from l2dm.metrics.forgetting import number as finite
from l2dm.reporting import charts, page
from l2dm.reporting.story import IDENTITY, Kept, Story

# The page stays readable, and of bounded size, however many concepts a line has learned.
LISTED = 40  # lines of a table

_METRICS = (
    (IDENTITY, "Identity similarity", "cosine of the identity encoder to the real pictures"),
    ("identity_accuracy", "Identity accuracy", "share of pictures whose nearest identity is right"),
    ("image_alignment", "Image alignment", "cosine of CLIP image features to the real pictures"),
    ("text_alignment", "Text alignment", "cosine of CLIP features to the prompt, not scaled"),
)


def matrices(story: Story, record: Scores) -> str:
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
        maps.append(
            f'<div><h3>{title}</h3><p class="note">{meaning}</p>{charts.heat_map(found)}</div>'
        )
    caption = (
        "Rows are models, columns are concepts: read down a column to see a concept live through "
        "later tasks. The first row is the pretrained base, prompted with the class noun alone. "
        f"Same prompts and seeds in every row.{story.bounds}"
    )
    return page.section(
        "Scores after each task", caption, f'<div class="maps">{"".join(maps)}</div>'
    )


def forgetting(story: Story) -> str:
    """A line per concept: its numbers, and its drop with an interval."""
    limit = story.limits.get("max_forgetting")
    domain = charts.domain_of([one.interval for one in story.kept], limit)
    chosen = sorted(story.kept, key=lambda one: one.lost, reverse=True)[:LISTED]
    rows = [_forgetting_row(story, one, domain, limit) for one in chosen]
    axis = f"drop, {page.number(domain[0])} to {page.number(domain[1])}"
    head = (
        "concept", "base", "learned", "peak", "now", "ceiling", "drop [95 %]", axis, "relative",
    )  # fmt: skip
    dashed = "" if limit is None else f", the dashed one the gate's limit of {page.number(limit)}"
    caption = (
        "Identity similarity of every concept: its peak in an earlier row minus now, measured on "
        "the same prompts and seeds; the interval is a paired bootstrap over pictures. Zero (solid "
        f"line) is kept, to the right is lost{dashed}. The ceiling is how similar the real "
        "pictures are to each other. Relative: 0 kept, 1 back to the base. The concept learned "
        f"last has nothing to lose yet.{latest(len(story.kept), LISTED, 'concepts')}"
    )
    return page.section(
        "Forgetting per concept", caption, page.table(head, rows, (1, 2, 3, 4, 5, 8))
    )


def _forgetting_row(
    story: Story, one: Kept, domain: tuple[float, float], limit: float | None
) -> list[str]:
    assert story.scores is not None
    record = story.scores.record
    column = next(i for i, concept in enumerate(record.concepts) if concept.name == one.name)
    peak = "–"
    if one.drop:
        peak = f"{page.number(one.drop.peak, 3)} ({page.text(record.rows[one.drop.row])})"
    drop = f"{page.number(one.interval.mean, 3)}{bounds(one.interval)}" if one.interval else "–"
    drop = f'<span class="name">{drop}</span>'
    return [
        page.concept(one.name, one.class_noun),
        page.number(finite(record.matrices[IDENTITY][0][column]), 3),
        page.number(one.learned, 3),
        peak,
        page.number(one.now, 3),
        page.number(one.ceiling, 3),
        drop,
        charts.interval_bar(one.interval, domain, limit) if one.interval else "",
        page.number(one.relative),
    ]


def bounds(interval: Interval | None, digits: int = 3) -> str:
    """The ends of an interval in brackets, after a blank; nothing if there are none."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f" [{page.number(interval.low, digits)}, {page.number(interval.high, digits)}]"


def latest(count: int, shown: int, what: str) -> str:
    """A sentence where a table is cut short, else nothing."""
    return f" {shown} of {count} {what} are shown." if count > shown else ""


def row_name(record: Scores, row: int) -> str:
    """The base, or the task with the concept it taught."""
    return f"{record.rows[row]} +{record.concepts[row - 1].name}" if row else "base"
