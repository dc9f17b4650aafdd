"""The champion's checks over time: one table, one line per concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from l2dm.reporting import charts, templating
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


def checks(past: Sequence[PastCheck]) -> Markup:
    """The section; nothing before the first check. past: oldest first."""
    if not past:
        return Markup()
    return templating.fill(
        "checks.html",
        checks=list(reversed(past))[:LISTED],
        marks=MARKS,
        chart=_chart(past[-SHOWN:]),
        cut=latest(len(past), LISTED, "checks"),
    )


def _chart(past: Sequence[PastCheck]) -> Markup:
    """Identity similarity on fresh seeds, check by check; a line needs two points."""
    if len(past) < 2:
        return Markup()
    names = dict.fromkeys(name for one in past for name in one.scores)
    found = {name: [one.scores.get(name) for one in past] for name in names}
    return charts.curves("Identity similarity on fresh seeds", found, unit="check", smooth=False)
