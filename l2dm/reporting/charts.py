"""Heat maps, interval bars and loss curves as HTML and inline SVG, coloured by the page's style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from l2dm.metrics.bootstrap import Interval
from l2dm.reporting.page import number, text

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


def heat_map(found: HeatMap) -> str:
    """The table and its colour scale. The first row is set apart: it is the base."""
    head = "".join(f"<th>{text(name)}</th>" for name in found.columns)
    lines = []
    for index, (name, cells) in enumerate(zip(found.rows, found.cells, strict=True)):
        shown = "".join(
            _heat_cell(value, found, (index, column) in found.new)
            for column, value in enumerate(cells)
        )
        lines.append(f'<tr><th class="row">{text(name)}</th>{shown}</tr>')
        lines += ['<tr class="gap"><td></td></tr>'] if index == 0 else []
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<div class="legend">{number(found.low)} <span class="ramp"></span> {number(found.high)}'
        "<span>stronger = higher = better; framed: just learned</span></div>"
    )


def scale_of(values: Sequence[float | None], *, unit: bool) -> tuple[float, float]:
    """Ends of a colour scale: 0 to 1 for shares, else the values rounded out to tenths."""
    present = [value for value in values if value is not None]
    if unit or not present:
        return 0.0, 1.0
    low, high = math.floor(min(present) * 10) / 10, math.ceil(max(present) * 10) / 10
    return (low, high) if high > low else (low, low + 0.1)


def interval_bar(found: Interval | None, domain: tuple[float, float], limit: float | None) -> str:
    """A dot with its interval on a common axis; a line at 0 and a dashed one at the limit."""
    low, high = domain

    def x(value: float) -> float:
        return round(8 + (_BAR - 16) * (value - low) / (high - low), 1)

    marks = [f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="22" stroke="var(--soft)"/>']
    if limit is not None:
        marks.append(
            f'<line x1="{x(limit)}" x2="{x(limit)}" y1="0" y2="22" stroke="var(--bad)" '
            'stroke-width="1.5" stroke-dasharray="3 3"/>'
        )
    if found is not None:
        over = limit is not None and found.mean > limit
        colour = "var(--bad)" if over else "var(--c1)"
        if found.low is not None and found.high is not None:
            marks.append(
                f'<line x1="{x(found.low)}" x2="{x(found.high)}" y1="11" y2="11" '
                f'stroke="{colour}" stroke-width="3" stroke-linecap="round" opacity=".45"/>'
            )
        marks.append(f'<circle cx="{x(found.mean)}" cy="11" r="4.5" fill="{colour}"/>')
    return f'<svg width="{_BAR}" height="22" role="img">{"".join(marks)}</svg>'


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
) -> str:
    """One chart of values over steps, or another unit; smooth: a running mean over 1/20 of them."""
    shown = {
        name: _running_mean(values) if smooth else list(values) for name, values in terms.items()
    }
    points = [value for values in shown.values() for value in values if value is not None]
    if not points:
        return ""
    steps = max(len(values) for values in terms.values())
    top = max(*points, 1e-9)
    axis = "".join(_gridline(share, share * top) for share in (0.0, 0.5, 1.0))
    lines, keys = [], []
    for index, (name, values) in enumerate(shown.items()):
        colour = f"var(--c{index % COLOURS + 1})"
        lines.append(_polyline(values, steps, top, colour))
        keys.append(f'<span class="key"><i style="background:{colour}"></i>{text(name)}</span>')
    return (
        f"<div><h3>{text(title)}</h3>"
        f'<svg width="100%" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{axis}{"".join(lines)}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">1</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{text(unit)} {steps}</text></svg>'
        f"{''.join(keys)}</div>"
    )


def _heat_cell(value: float | None, found: HeatMap, new: bool) -> str:
    if value is None:
        return '<td class="none">·</td>'
    share = min(1.0, max(0.0, (value - found.low) / (found.high - found.low)))
    mark = ' class="new"' if new else ""
    return (
        f'<td{mark} style="background:color-mix(in srgb,var(--heat) {share * STRONGEST:.0f}%,'
        f'var(--surface))">{number(value)}</td>'
    )


def _gridline(share: float, value: float) -> str:
    y = _y(share)
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" stroke="var(--rule)"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.2g}</text>'
    )


def _polyline(values: Sequence[float | None], steps: int, top: float, colour: str) -> str:
    stride = max(1, len(values) // _POINTS)
    shown = [(at, value) for at, value in enumerate(values) if at % stride == 0]
    spread = max(1, steps - 1)
    points = " ".join(
        f"{_LEFT + (_WIDTH - _LEFT) * at / spread:.1f},{_y(value / top):.1f}"
        for at, value in shown
        if value is not None
    )
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" '
        'stroke-linejoin="round"/>'
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
