"""One self-contained HTML report per line: no network, no scripts, opens from disk or a srcdoc."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

from markupsafe import Markup

from l2dm import escape
from l2dm.doors import SIGNS, Scores, marked
from l2dm.files.manifest import Door
from l2dm.reporting import charts, numbers, pictures, templating, timeline
from l2dm.reporting.numbers import LISTED, bounds, latest
from l2dm.reporting.story import ROWS, ReportEntry, Story, curve_of, method_of, tell
from l2dm.reporting.timeline import PastCheck

__all__ = ["PastCheck", "ReportEntry", "StepCost", "render", "summary_markdown"]


@dataclass(frozen=True)
class StepCost:
    """What one step of one task took. peak_bytes: memory at its highest; None if not measured."""

    task: str
    step: str
    seconds: float
    peak_bytes: int | None = None


def render(
    line: str,
    history: Sequence[ReportEntry],
    costs: Sequence[StepCost] = (),
    checks: Sequence[PastCheck] = (),
    warnings: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The whole report as HTML text. Equal doors give an equal page. Raises BadDoor.

    checks: oldest first. warnings: what is to be said of the pictures of a concept, by its name.
    """
    story = tell(line, history)
    parts = [templating.fill("empty.html", line=line)]
    if story.scores is not None:
        parts = [
            _header(story, story.scores, warnings),
            _tasks(story),
            timeline.checks(checks),
            numbers.matrices(story, story.scores.record),
            numbers.forgetting(story),
            pictures.concepts(story, story.scores),
            pictures.class_prompts(story, story.scores),
            _loss(story),
            _costs(costs),
            templating.fill("words.html"),
        ]
    return str(templating.fill("report.html", line=line, parts=parts))


def summary_markdown(line: str, history: Sequence[ReportEntry]) -> str:
    """The newest verdict and the headline numbers, short, for a pipeline's user interface."""
    story = tell(line, history)
    if story.subject is None:
        return f"## {line}\n\nThis line has not learned a concept yet.\n"
    newest = story.history[-1]
    verdict = newest.release.record.verdict
    champion = story.champion
    lines = [
        f"## {line}: version {newest.version} {_outcome(story, newest)}",
        "",
        f"Champion: {f'version {champion.version}' if champion else 'none yet'}",
        "",
        *(
            f"- {SIGNS[passed]}{escape.markdown(reason)}"
            for passed, reason in marked(verdict.reasons, verdict.findings)
        ),
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value, _ in _headlines(story)),
    ]
    return "\n".join(lines) + "\n"


def _outcome(story: Story, entry: ReportEntry) -> str:
    """What became of a version."""
    if entry in story.taken_back:
        return "taken back by a rollback"
    return "promoted" if entry.release.record.verdict.open else "held"


def _header(story: Story, scores: Door[Scores], warnings: Mapping[str, str]) -> Markup:
    assert story.subject is not None  # it is whose scores these are
    return templating.fill(
        "header.html",
        line=story.line,
        champion=story.champion,
        knows=story.knows,
        warnings=warnings,
        lost=story.lost,
        subject=story.subject,
        concepts=_counted(len(story.kept), "concept"),
        tasks=_counted(len(story.history), "task"),
        method=method_of(story.subject),
        base=scores.record.base[:12],
        headlines=_headlines(story),
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _headlines(story: Story) -> list[tuple[str, str, str]]:
    """Name, value and how to read it, of each headline number."""
    summary = story.summary or {}
    worst = max((one.interval.mean for one in story.kept if one.interval), default=None)
    drift = story.last_drift()
    moved = fmean(one.distance for one in drift) if drift else None
    return [
        (
            "Identity accuracy",
            templating.number(summary.get("final average")),
            f"mean over concepts{bounds(story.identity, 2)}; 1 is best",
        ),
        (
            "Forgetting",
            templating.number(summary.get("forgetting"), 3),
            f"mean drop of identity similarity{bounds(story.forgetting)}; 0 is kept",
        ),
        (
            "Relative forgetting",
            templating.number(summary.get("relative forgetting")),
            "0: all kept, 1: back to the base",
        ),
        (
            "Worst drop",
            templating.number(worst, 3),
            f"of any past concept{_limit(story, 'max_forgetting')}",
        ),
        (
            "Backward transfer",
            templating.number(summary.get("backward transfer"), 3),
            "change since learning; below 0 is loss",
        ),
        (
            "Class drift",
            templating.number(moved, 3),
            f"class prompts against the base; 0 is none{_limit(story, 'max_drift')}",
        ),
        ("Text alignment", *_text_alignment(story)),
    ]


def _text_alignment(story: Story) -> tuple[str, str]:
    """Of the concept learned last, and how to read it."""
    assert story.scores is not None
    matrix = story.scores.record.matrices["text_alignment"]
    base, limit = templating.number(matrix[0][-1]), story.limits.get("max_text_loss")
    allowed = "" if limit is None else f"; gate: at most {limit:.0%} below"
    meaning = f"pictures of the concept learned last and their prompts; the base's is {base}"
    return templating.number(matrix[-1][-1]), meaning + allowed


def _tasks(story: Story) -> Markup:
    return templating.fill(
        "tasks.html",
        entries=list(reversed(story.history))[:LISTED],
        taken_back=story.taken_back,
        cut=latest(len(story.history), LISTED, "tasks"),
    )


def _limit(story: Story, key: str) -> str:
    limit = story.limits.get(key)
    return "" if limit is None else f"; gate: at most {templating.number(limit)}"


def _loss(story: Story) -> Markup:
    drawn = [
        charts.curves(f"{entry.release.record.task}, version {entry.version}", curve_of(entry))
        for entry in list(reversed(story.history))[:ROWS]
    ]
    cut = latest(len(story.history), ROWS, "tasks")
    return templating.fill("loss.html", charts=drawn, cut=cut) if any(drawn) else Markup()


def _costs(costs: Sequence[StepCost]) -> Markup:
    if not costs:
        return Markup()
    tasks = list(dict.fromkeys(cost.task for cost in reversed(costs)))
    steps = list(dict.fromkeys(cost.step for cost in costs))
    seconds = {(cost.task, cost.step): cost.seconds for cost in costs}
    rows = []
    for task in tasks[:LISTED]:
        found = [seconds.get((task, step)) for step in steps]
        rows.append((task, found, sum(value for value in found if value is not None)))
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    return templating.fill(
        "costs.html",
        steps=steps,
        tasks=rows,
        peak_bytes=max(peaks, default=None),
        cut=latest(len(tasks), LISTED, "tasks"),
    )
