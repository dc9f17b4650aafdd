import re

import pytest

from l2dm.metrics.bootstrap import Interval
from l2dm.reporting import charts, templating


def test_a_missing_cell_is_a_dot_and_never_0():
    found = charts.HeatMap(["base", "t1"], ["a"], [[None], [0.5]], frozenset({(1, 0)}), 0.0, 1.0)
    html = charts.heat_map(found)
    assert '<td class="none">·</td>' in html
    assert '<td class="new"' in html
    assert "0.00 <span" in html  # only in the legend
    assert html.count("0.00") == 1


def test_heat_is_the_share_of_the_scale():
    # 0.5 on a scale from 0 to 1 is half of the strongest 75 percent; beyond the ends is clamped
    found = charts.HeatMap(["r"], ["a", "b", "c"], [[0.5, 2.0, -1.0]], frozenset(), 0.0, 1.0)
    assert re.findall(r"var\(--heat\) (\d+)%", charts.heat_map(found)) == ["38", "75", "0"]


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([0.42, 0.87, None], False, (0.4, 0.9)),
        ([-0.13], False, (-0.2, -0.1)),
        ([0.5, 0.5], False, (0.5, 0.6)),
        ([0.3, 0.4], True, (0.0, 1.0)),
        ([None], False, (0.0, 1.0)),
    ],
)
def test_scales(values, unit, expected):
    assert charts.scale_of(values, unit=unit) == pytest.approx(expected)


def test_an_interval_bar_puts_values_on_the_axis():
    # 240 px wide with 8 px of room: 0 lies at 8, 1 at 232, a quarter at 64
    html = charts.interval_bar(Interval(0.25, 0.0, 0.5), (0.0, 1.0), 1.0)
    assert '<circle cx="64.0"' in html
    assert 'x1="8.0" x2="120.0" y1="11"' in html  # the interval
    assert 'x1="232.0" x2="232.0"' in html  # the limit
    assert 'fill="var(--c1)"' in html


def test_a_drop_over_the_limit_is_marked():
    assert 'fill="var(--bad)"' in charts.interval_bar(Interval(0.3, None, None), (0.0, 1.0), 0.25)


def test_one_picture_has_a_dot_without_an_interval():
    html = charts.interval_bar(Interval(0.25, None, None), (0.0, 1.0), None)
    assert html.count("<line") == 1  # zero only
    assert html.count("<circle") == 1


def test_the_axis_holds_zero_limit_and_every_interval():
    low, high = charts.domain_of([Interval(0.3, 0.1, 0.5), Interval(-0.2, None, None), None], 0.25)
    assert low < -0.2
    assert high > 0.5
    assert charts.domain_of([], None) == pytest.approx((-0.0025, 0.0525))


def test_curves_are_running_means():
    # 40 steps: a window of 2. 1, 3, 3, 3 ... gives 1, 2, 3, 3 ...
    html = charts.curves("t1", {"denoise": [1.0] + [3.0] * 39})
    heights = [float(pair.split(",")[1]) for pair in _points(html)]
    # the top (3) lies at 8, the bottom (0) at 130: 1 is at 89.3, 2 at 48.7
    assert heights[:4] == pytest.approx([89.3, 48.7, 8.0, 8.0])
    assert "step 40" in html


def test_a_curve_leaves_out_what_is_not_finite():
    html = charts.curves("t1", {"denoise": [1.0, None, float("nan"), 1.0]})
    assert len(_points(html)) == 2


def test_long_curves_are_thinned_and_empty_ones_left_out():
    assert len(_points(charts.curves("t1", {"denoise": [1.0] * 10_000}))) <= 300
    assert charts.curves("t1", {}) == ""
    assert charts.curves("t1", {"denoise": []}) == ""


def test_names_in_a_chart_stay_data():
    evil = '"><script>x</script>'
    safe = "&#34;&gt;&lt;script&gt;x&lt;/script&gt;"
    html = charts.curves(evil, {evil: [1.0, 2.0]}, unit=evil)
    assert "<script" not in html
    assert f'aria-label="{safe}"' in html
    assert f"{safe} 2</text>" in html
    assert html.count(safe) == 4  # heading, label, unit and key
    found = charts.HeatMap([evil], [evil], [[0.5]], frozenset(), 0.0, 1.0)
    assert charts.heat_map(found).count(safe) == 2


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(None, 2, "–"), (0.125, 3, "0.125"), (-0.5, 2, "−0.50"), (-0.0001, 2, "0.00"), (0, 1, "0.0")],
)
def test_numbers_for_reading(value, digits, expected):
    assert templating.number(value, digits) == expected


def _points(html):
    return re.findall(r'points="([^"]*)"', html)[0].split()
