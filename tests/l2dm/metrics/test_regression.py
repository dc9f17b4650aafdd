"""Tests of a released model's health, against numbers worked out by hand and against chance."""

import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.regression import Bars, Finding, drop_p, examine, holm, overall, pairs_needed

BARS = Bars(margin=0.1, alpha=0.05, power=0.9)


def test_three_pairs_by_hand() -> None:
    """Differences 3, 2, 1. Of 8 sign patterns one sums to 6, one to 4 (+ + -), ..."""
    assert drop_p([3, 2, 1], [0, 0, 0]) == 1 / 8
    # differences 3, 2, -1 sum to 4: reached by + + + (6) and + + - (4)
    assert drop_p([3, 2, 0], [0, 0, 1]) == 2 / 8
    # the other way round, sum -4: every pattern but - - - (-6) reaches it
    assert drop_p([0, 0, 1], [3, 2, 0]) == 7 / 8
    assert drop_p([1, 2, 3], [1, 2, 3]) == 1.0


def test_a_margin_is_taken_off_every_difference() -> None:
    """Differences 3, 2, 1 less 2 are 1, 0, -1: sum 0 is reached by + * + , + * -, - * - ..."""
    # signs of 1 and -1 (two patterns each for the 0): sums 0, 2, -2, 0; six of eight reach 0
    assert drop_p([3, 2, 1], [0, 0, 0], margin=2) == 6 / 8


def test_many_pairs_are_drawn_and_agree_with_the_normal_law() -> None:
    draw = torch.Generator().manual_seed(1)
    before = torch.randn(60, generator=draw)
    after = before - 0.3 + torch.randn(60, generator=draw)
    difference = before - after
    z = float(difference.mean() / (difference.std() / 60**0.5))
    expected = 1 - torch.distributions.Normal(0, 1).cdf(torch.tensor(z)).item()
    assert drop_p(before.tolist(), after.tolist()) == pytest.approx(expected, abs=0.006)


def test_holm_by_hand() -> None:
    """Sorted .01, .02, .04 times 3, 2, 1 is .03, .04, .04; never smaller than the one before."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.02}) == pytest.approx(
        {"a": 0.04, "b": 0.03, "c": 0.04}
    )
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def scores(mean: float, seed: int, n: int = 16, spread: float = 0.05) -> list[float]:
    draw = torch.Generator().manual_seed(seed)
    return (mean + spread * torch.randn(n, generator=draw)).tolist()


def test_one_damaged_concept_of_ten_is_found_and_named() -> None:
    before = {f"c{i}": scores(0.6, i) for i in range(10)}
    after = {f"c{i}": scores(0.6, 100 + i) for i in range(10)}
    after["c7"] = scores(0.2, 107)
    findings = examine(before, after, BARS)
    assert [one.concept for one in findings if one.health == "regressed"] == ["c7"]
    assert overall(findings) == "regressed"
    assert "c7: lost 0.4" in findings[7].sentence
    assert findings[7].sentence.endswith("of all concepts): regressed")


def test_a_healthy_night_is_healthy_and_a_small_sample_says_what_would_decide() -> None:
    before = {"rex": scores(0.6, 1)}
    assert overall(examine(before, {"rex": scores(0.6, 2)}, BARS)) == "healthy"
    few = examine({"rex": [0.6, 0.5, 0.7]}, {"rex": [0.5, 0.55, 0.6]}, BARS)
    assert few[0].health == "inconclusive"
    assert few[0].needed >= 5  # 2^-4 is over 0.05: four pairs can never show it
    assert few[0].sentence.endswith(f"{few[0].needed} pairs would decide")


def test_a_certain_but_small_drop_is_no_alarm() -> None:
    before = [0.6 + 0.01 * i for i in range(16)]
    (one,) = examine({"rex": before}, {"rex": [x - 0.03 for x in before]}, BARS)
    assert one.p < 0.001
    assert one.health == "healthy"
    assert one.drop == pytest.approx(0.03)


def test_sample_size_by_hand() -> None:
    """(1.645 + 1.282) · 0.2 / 0.1 = 5.853, squared 34.3; with ten concepts z = 2.576: 59.5."""
    assert pairs_needed(0.2, BARS, 1) == 35
    assert pairs_needed(0.2, BARS, 10) == 60
    assert pairs_needed(0.0, BARS, 1) == 5  # 2^-5 is the first under 0.05


def test_error_rates_over_many_nights() -> None:
    """Ten concepts, twelve pairs, spread 0.05 a picture; each night has a release of its own."""
    any_drop, alarms, missed, nights = Bars(margin=1e-9), 0, 0, 200
    false_alarms = 0
    for night in range(nights):
        before = {f"c{i}": scores(0.6, night * 1000 + i, n=12) for i in range(10)}
        after = {f"c{i}": scores(0.6, night * 1000 + 500 + i, n=12) for i in range(10)}
        alarms += overall(examine(before, after, any_drop)) == "regressed"
        false_alarms += overall(examine(before, after, BARS)) == "regressed"
        after["c3"] = scores(0.45, night * 1000 + 900, n=12)
        missed += examine(before, after, BARS)[3].health != "regressed"
    # alpha 0.05 where any drop is an alarm: 10 of 200 expected at most, 3 standard errors more: 20
    assert alarms <= 20
    assert false_alarms == 0  # with a margin of two spreads
    assert missed <= 0.1 * nights


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(WrongShape, match="found 2 before and 1 after"):
        drop_p([1, 2], [1])
    with pytest.raises(WrongShape, match="finite"):
        drop_p([float("nan")], [1])
    with pytest.raises(WrongShape, match=r"found \['rex'\] and \['mimi'\]"):
        examine({"rex": [1]}, {"mimi": [1]}, BARS)


def test_overall_is_as_bad_as_the_worst() -> None:
    def one(health: str) -> Finding:
        return Finding("c", health, 0.0, 1.0, 8)  # type: ignore[arg-type]

    assert overall([one("healthy"), one("healthy")]) == "healthy"
    assert overall([one("healthy"), one("inconclusive")]) == "inconclusive"
    assert overall([one("inconclusive"), one("regressed")]) == "regressed"
