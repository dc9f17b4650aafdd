"""The champion's checks over time: one table, one line per concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from l2dm.reporting import charts, page
from l2dm.reporting.numbers import LISTED, latest

SHOWN = 60  # latest checks in the chart
MARKS: Mapping[str, tuple[str, str]] = {
    "healthy": ("✓ healthy", "good"),
    "regressed": ("✕ regressed", "bad"),
}


@dataclass(frozen=True)
class PastCheck:
    """What one check found: when, of which version, every concept's mean on fresh seeds."""

    at: str
    version: int
    health: str
    cause: str
    scores: Mapping[str, float]
    reasons: tuple[str, ...]


def checks(past: Sequence[PastCheck]) -> str:
    """The section; nothing before the first check. past: oldest first."""
    if not past:
        return ""
    rows = []
    for one in list(reversed(past))[:LISTED]:
        word, kind = MARKS.get(one.health, (one.health, ""))
        reasons = "".join(f"<li>{page.text(reason)}</li>" for reason in one.reasons)
        rows.append(
            [
                page.text(one.at),
                f"{one.version}",
                page.chip(word, kind),
                page.text(one.cause),
                f'<ul class="reasons">{reasons}</ul>',
            ]
        )
    caption = (
        "The champion evaluated again: on the seeds of its release, which give its scores again "
        "unless something changed, and on fresh ones, which the chart shows. The bare base, drawn "
        "again too, tells the model from its environment."
        f"{latest(len(past), LISTED, 'checks')}"
    )
    head = ("at", "version", "health", "cause", "what was found")
    return page.section("Checks", caption, _chart(past[-SHOWN:]) + page.table(head, rows))


def _chart(past: Sequence[PastCheck]) -> str:
    """Identity similarity on fresh seeds, check by check; a line needs two points."""
    if len(past) < 2:
        return ""
    names = dict.fromkeys(name for one in past for name in one.scores)
    found = {name: [one.scores.get(name) for one in past] for name in names}
    chart = charts.curves("Identity similarity on fresh seeds", found, unit="check", smooth=False)
    return f'<div class="curves">{chart}</div>'
