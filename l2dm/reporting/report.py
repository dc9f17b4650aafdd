"""One self-contained HTML report per line: no network, no scripts, opens from disk or a srcdoc."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from l2dm.reporting import charts, numbers, page, pictures, timeline
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
) -> str:
    """The whole report as HTML text. Equal doors give an equal page. Raises BadDoor.

    checks: oldest first.
    """
    story = tell(line, history)
    if story.scores is None:
        empty = f"<h1>{page.text(line)}</h1><p>This line has not learned a concept yet.</p>"
        return page.page(f"{line} – model line", [empty])
    return page.page(
        f"{line} – model line",
        [
            _header(story),
            _tasks(story),
            timeline.checks(checks),
            numbers.matrices(story, story.scores.record),
            numbers.forgetting(story),
            pictures.concepts(story, story.scores),
            pictures.class_prompts(story, story.scores),
            _curves(story),
            _costs(costs),
            _words(),
        ],
    )


def summary_markdown(line: str, history: Sequence[ReportEntry]) -> str:
    """The newest verdict and the headline numbers, short, for a pipeline's user interface."""
    story = tell(line, history)
    if story.subject is None:
        return f"## {line}\n\nThis line has not learned a concept yet.\n"
    newest = story.history[-1]
    verdict = newest.release.record.verdict
    champion = story.champion
    lines = [
        f"## {line}: version {newest.version} {'promoted' if verdict.open else 'held'}",
        "",
        f"Champion: {f'version {champion.version}' if champion else 'none yet'}",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value, _ in _headlines(story)),
    ]
    return "\n".join(lines) + "\n"


def _header(story: Story) -> str:
    champion, subject = story.champion, story.subject
    assert subject is not None  # render asked for scores
    status = (
        page.chip(f"champion: version {champion.version}", "good")
        if champion
        else page.chip("no champion yet", "bad")
    )
    if subject is not champion:
        status += page.chip(f"numbers below: version {subject.version}, not promoted", "bad")
    tiles = "".join(page.tile(*headline) for headline in _headlines(story))
    base = story.scores.record.base if story.scores else ""
    return (
        f"<h1>{page.text(story.line)}</h1><div>{status}</div>"
        f'<p class="soft">{_counted(len(story.kept), "concept")} after '
        f"{_counted(len(story.history), 'task')}, method "
        f"{page.text(method_of(subject))}, base model <code>{page.text(base[:12])}</code></p>"
        f'<div class="tiles">{tiles}</div>'
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
            page.number(summary.get("final average")),
            f"mean over concepts{bounds(story.identity, 2)}; 1 is best",
        ),
        (
            "Forgetting",
            page.number(summary.get("forgetting"), 3),
            f"mean drop of identity similarity{bounds(story.forgetting)}; 0 is kept",
        ),
        (
            "Relative forgetting",
            page.number(summary.get("relative forgetting")),
            "0: all kept, 1: back to the base",
        ),
        (
            "Worst drop",
            page.number(worst, 3),
            f"of any past concept{_limit(story, 'max_forgetting')}",
        ),
        (
            "Backward transfer",
            page.number(summary.get("backward transfer"), 3),
            "change since learning; below 0 is loss",
        ),
        (
            "Class drift",
            page.number(moved, 3),
            f"class prompts against the base; 0 is none{_limit(story, 'max_drift')}",
        ),
    ]


def _tasks(story: Story) -> str:
    rows = []
    for entry in list(reversed(story.history))[:LISTED]:
        record = entry.release.record
        open_ = record.verdict.open
        concept = record.concept
        named = page.concept(concept.name, concept.class_noun) if concept else ""
        reasons = "".join(f"<li>{page.text(reason)}</li>" for reason in record.verdict.reasons)
        aliases = "".join(page.chip(alias) for alias in entry.aliases)
        rows.append(
            [
                f"{entry.version}",
                page.text(record.task),
                named,
                page.chip("✓ promoted", "good") if open_ else page.chip("✕ held", "bad"),
                f'<ul class="reasons">{reasons}</ul>',
                aliases,
            ]
        )
    head = ("version", "task", "concept", "verdict", "reasons", "aliases")
    caption = (
        "The gate opens when the new concept was learned, no past concept was lost and the class "
        "words still mean what they meant. A held version is kept as challenger; the champion "
        f"stays and the next task starts from it.{latest(len(story.history), LISTED, 'tasks')}"
    )
    return page.section("Tasks and verdicts", caption, page.table(head, rows))


def _limit(story: Story, key: str) -> str:
    limit = story.limits.get(key)
    return "" if limit is None else f"; gate: at most {page.number(limit)}"


def _curves(story: Story) -> str:
    shown = list(reversed(story.history))[:ROWS]
    drawn = [
        charts.curves(f"{entry.release.record.task}, version {entry.version}", curve_of(entry))
        for entry in shown
    ]
    caption = (
        "Each term as it entered the loss, over optimizer steps: the mean of the last twentieth of "
        "the run. Falling and flat at the end is good; a term that rises is losing against the "
        f"others.{latest(len(story.history), ROWS, 'tasks')}"
    )
    body = "".join(drawn)
    return page.section("Loss", caption, f'<div class="curves">{body}</div>' if body else "")


def _costs(costs: Sequence[StepCost]) -> str:
    if not costs:
        return ""
    tasks = list(dict.fromkeys(cost.task for cost in reversed(costs)))
    steps = list(dict.fromkeys(cost.step for cost in costs))
    seconds = {(cost.task, cost.step): cost.seconds for cost in costs}
    rows = []
    for task in tasks[:LISTED]:
        found = [seconds.get((task, step)) for step in steps]
        total = sum(value for value in found if value is not None)
        rows.append(
            [page.text(task), *(page.number(one, 1) for one in found), f"<b>{total:.1f}</b>"]
        )
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    memory = f" Highest memory of any step: {max(peaks) / 2**20:,.0f} MiB." if peaks else ""
    caption = f"Wall-clock seconds of every step.{memory}{latest(len(tasks), LISTED, 'tasks')}"
    columns = range(1, len(steps) + 2)
    return page.section(
        "Cost", caption, page.table(("task", *steps, "total"), rows, tuple(columns))
    )


def _words() -> str:
    meanings = (
        ("Identity similarity", "mean cosine of a drawn picture to all real pictures, by the "
         "encoder that tells individuals apart"),
        ("Identity accuracy", "is the nearest of all known identities and the foreign ones the "
         "right one; an identity lies at the mean of its real pictures"),
        ("Forgetting", "mean over past concepts of peak minus now; the peak lies before the last "
         "task"),
        ("Backward transfer", "mean over past concepts of now minus right after learning"),
        ("Relative forgetting", "what was lost of what learning had gained over the base; concepts "
         "that never rose above the base are left out"),
        ("Distance", "1 − cosine of image features between the base's picture and the picture now, "
         "same prompt and seed; 0 is the same, and identical pictures give exactly 0"),
        ("KID", "squared difference of the two distributions, unbiased, times 1000; around 0 "
         "without drift, and then as often below it as above"),
    )  # fmt: skip
    body = "".join(f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in meanings)
    return page.section("How to read the numbers", "", f"<dl>{body}</dl>")
