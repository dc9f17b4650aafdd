"""Where everything of a heat map, an interval bar and a loss curve lies; templates draw it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from l2dm.metrics.bootstrap import Interval
from l2dm.reporting import templating

STRONGEST = 75  # percent of the heat colour: text stays readable on it, light and dark
COLOURS = 6
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 330, 150, 40, 20  # of a curve chart, pixels
_POINTS = 240  # at most, per curve
_BAR = 240  # width of an interval bar, pixels


@dataclass(frozen=True)
class HeatMap:
    """Cells of a matrix. `new` are the (row, column) cells in which a concept was just learned."""

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[float | None]]
    new: frozenset[tuple[int, int]]
    low: float
    high: float


@dataclass(frozen=True)
class _Heat:
    """One coloured cell. percent: how much of the heat colour, 0 to STRONGEST."""

    value: float
    percent: str
    new: bool


@dataclass(frozen=True)
class _Curve:
    """One line of a chart. points: "x,y" pairs in pixels."""

    name: str
    points: str
    colour: str


def heat_map(found: HeatMap) -> Markup:
    """The table and its colour scale. The first row is set apart: it is the base."""
    rows = [
        (
            name,
            [_heat(value, found, (row, column) in found.new) for column, value in enumerate(cells)],
        )
        for row, (name, cells) in enumerate(zip(found.rows, found.cells, strict=True))
    ]
    return templating.fill(
        "heat_map.html", columns=found.columns, rows=rows, low=found.low, high=found.high
    )


def scale_of(values: Sequence[float | None], *, unit: bool) -> tuple[float, float]:
    """Ends of a colour scale: 0 to 1 for shares, else the values rounded out to tenths."""
    present = [value for value in values if value is not None]
    if unit or not present:
        return 0.0, 1.0
    low, high = math.floor(min(present) * 10) / 10, math.ceil(max(present) * 10) / 10
    return (low, high) if high > low else (low, low + 0.1)


def interval_bar(found: Interval, domain: tuple[float, float], limit: float | None) -> Markup:
    """A dot with its interval on a common axis; a line at 0 and a dashed one at the limit."""
    low, high = domain

    def x(value: float | None) -> float | None:
        if value is None:
            return None
        return round(8 + (_BAR - 16) * (value - low) / (high - low), 1)

    over = limit is not None and found.mean > limit
    return templating.fill(
        "interval_bar.svg",
        width=_BAR,
        zero=x(0.0),
        limit=x(limit),
        low=x(found.low),
        high=x(found.high),
        mean=x(found.mean),
        colour="var(--bad)" if over else "var(--c1)",
    )


def domain_of(found: Sequence[Interval | None], limit: float | None) -> tuple[float, float]:
    """A common axis that holds 0, the limit and every interval, with a little room."""
    ends = [0.0, 0.05, limit or 0.0]
    for one in found:
        if one is not None:
            ends += [one.mean, *(end for end in (one.low, one.high) if end is not None)]
    room = 0.05 * (max(ends) - min(ends))
    return min(ends) - room, max(ends) + room


def curves(
    title: str,
    terms: Mapping[str, Sequence[float | None]],
    *,
    unit: str = "step",
    smooth: bool = True,
) -> Markup:
    """One chart of values over steps, or another unit; smooth: a running mean over 1/20 of them."""
    shown = {
        name: _running_mean(values) if smooth else list(values) for name, values in terms.items()
    }
    points = [value for values in shown.values() for value in values if value is not None]
    if not points:
        return Markup()
    steps = max(len(values) for values in terms.values())
    top = max(*points, 1e-9)
    return templating.fill(
        "curves.html",
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        gridlines=[(_y(share), f"{share * top:.2g}") for share in (0.0, 0.5, 1.0)],
        curves=[
            _Curve(name, _points(values, steps, top), f"var(--c{index % COLOURS + 1})")
            for index, (name, values) in enumerate(shown.items())
        ],
        unit=unit,
        steps=steps,
    )


def _heat(value: float | None, found: HeatMap, new: bool) -> _Heat | None:
    if value is None:
        return None
    share = min(1.0, max(0.0, (value - found.low) / (found.high - found.low)))
    return _Heat(value, f"{share * STRONGEST:.0f}", new)


def _points(values: Sequence[float | None], steps: int, top: float) -> str:
    stride = max(1, len(values) // _POINTS)
    shown = [(at, value) for at, value in enumerate(values) if at % stride == 0]
    spread = max(1, steps - 1)
    return " ".join(
        f"{_LEFT + (_WIDTH - _LEFT) * at / spread:.1f},{_y(value / top):.1f}"
        for at, value in shown
        if value is not None
    )


def _y(share: float) -> float:
    return round(8 + (_HEIGHT - _BOTTOM - 8) * (1 - share), 1)


def _running_mean(values: Sequence[float | None]) -> list[float | None]:
    """Mean over the last twentieth of the run at every step; None where nothing is finite."""
    window = max(1, len(values) // 20)
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    sums = list(accumulate((value or 0.0 for value in finite), initial=0.0))
    counts = list(accumulate((value is not None for value in finite), initial=0))
    found: list[float | None] = []
    for end in range(1, len(values) + 1):
        start = max(0, end - window)
        count = counts[end] - counts[start]
        found.append((sums[end] - sums[start]) / count if count else None)
    return found
