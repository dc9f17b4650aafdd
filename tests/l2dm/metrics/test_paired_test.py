"""Tests of a released model's health, against numbers worked out by hand and against chance."""

import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.paired_test import (
    Bars,
    Comparison,
    compare,
    drop_p,
    family_p,
    overall,
    pairs_needed,
)

BARS = Bars(margin=0.1, alpha=0.05, power=0.9)


def test_three_pairs_by_hand() -> None:
    """Differences 3, 2, 1. Of 8 sign patterns one sums to 6, one to 4 (+ + -), ..."""
    assert drop_p([3, 2, 1]) == 1 / 8
    # differences 3, 2, -1 sum to 4: reached by + + + (6) and + + - (4)
    assert drop_p([3, 2, -1]) == 2 / 8
    # the other way round, sum -4: every pattern but - - - (-6) reaches it
    assert drop_p([-3, -2, 1]) == 7 / 8
    assert drop_p([0, 0, 0, 0]) == 1.0


def test_many_pairs_are_drawn_and_agree_with_the_normal_law() -> None:
    draw = torch.Generator().manual_seed(1)
    difference = 0.3 + 1.4 * torch.randn(60, generator=draw)
    z = float(difference.mean() / (difference.std() / 60**0.5))
    expected = 1 - torch.distributions.Normal(0, 1).cdf(torch.tensor(z)).item()
    assert drop_p(difference.tolist()) == pytest.approx(expected, abs=0.008)


def test_two_concepts_by_hand() -> None:
    """Means of a and b under ++ +- -+ --: a 2, 0, 0, -2; b 0.5, 4.5, -4.5, -0.5.

    a alone: 1 of 4. The larger of the two is 2, 4.5, 0, -0.5: 2 of 4 reach a's 2. b is compared
    with itself: 2 of 4 reach 0.5.
    """
    assert drop_p([2, 2]) == 1 / 4
    assert family_p({"a": [2, 2], "b": [5, -4]}) == {"a": 2 / 4, "b": 2 / 4}
    assert family_p({}) == {}


def test_what_moves_together_is_corrected_for_once() -> None:
    assert family_p({name: [3, 2, 1] for name in "abcd"}) == dict.fromkeys("abcd", 1 / 8)


def test_a_concept_is_never_surer_than_one_that_lost_more() -> None:
    """a: 3 of 4 patterns reach its mean 1 (5, 1, -1, -5 and b's 0.9, 0, 0, -0.9): 2 of 4; b: 1."""
    assert drop_p([0.9, 0.9]) == 1 / 4
    assert family_p({"a": [-4, 6], "b": [0.9, 0.9]}) == {"a": 2 / 4, "b": 2 / 4}


def scores(mean: float, seed: int, n: int = 16, spread: float = 0.05) -> list[float]:
    draw = torch.Generator().manual_seed(seed)
    return (mean + spread * torch.randn(n, generator=draw)).tolist()


def test_one_damaged_concept_of_ten_is_found_and_named() -> None:
    before = {f"c{i}": scores(0.6, i) for i in range(10)}
    after = {f"c{i}": scores(0.6, 100 + i) for i in range(10)}
    after["c7"] = scores(0.2, 107)
    findings = compare(before, after, BARS)
    assert [one.concept for one in findings if one.health == "regressed"] == ["c7"]
    assert overall(findings) == "regressed"
    assert findings[7].drop == pytest.approx(0.4, abs=0.03)


def test_a_hundred_concepts_need_no_more_pictures_than_one() -> None:
    """Six pairs that all fall by more than any other ever does: 1 of 64 patterns."""
    before = {f"c{i}": scores(0.6, i, n=6) for i in range(100)}
    after = {f"c{i}": scores(0.6, 500 + i, n=6) for i in range(100)}
    after["c7"] = scores(0.1, 507, n=6)
    findings = compare(before, after, BARS)
    assert [one.concept for one in findings if one.health == "regressed"] == ["c7"]
    assert findings[7].p == 1 / 64


def test_where_chance_has_no_say_one_pair_tells() -> None:
    (tested,) = compare({"rex": [0.6]}, {"rex": [0.3]}, BARS)
    assert (tested.p, tested.health) == (1 / 2, "inconclusive")
    (exact,) = compare({"rex": [0.6]}, {"rex": [0.3]}, BARS, exact=True)
    assert (exact.p, exact.health, exact.drop) == (0.0, "regressed", pytest.approx(0.3))


def test_a_healthy_night_is_healthy_and_a_small_sample_says_what_would_decide() -> None:
    before = {"rex": scores(0.6, 1)}
    assert overall(compare(before, {"rex": scores(0.6, 2)}, BARS)) == "healthy"
    (few,) = compare({"rex": [0.6, 0.5, 0.7]}, {"rex": [0.58, 0.5, 0.66]}, BARS)
    # drop 0.02, spread 0.02: ((1.645 + 1.282) · 0.02 / 0.08)^2 + 1.35 = 1.9, but 2^-4 is over 0.05
    assert (few.health, few.needed) == ("inconclusive", 5)


def test_a_certain_but_small_drop_is_no_alarm() -> None:
    before = [0.6 + 0.01 * i for i in range(16)]
    (one,) = compare({"rex": before}, {"rex": [x - 0.03 for x in before]}, BARS)
    assert one.p < 0.001
    assert one.health == "healthy"
    assert one.drop == pytest.approx(0.03)


def test_sample_size_by_hand() -> None:
    """Of alpha 0.05, z = 1.645 (0.005: 2.576), of power 0.9, 1.282; z^2 / 2 is 1.35 (3.32)."""
    # no drop: the margin is 0.1 away. (2.926 · 0.2 / 0.1)^2 = 34.3
    assert pairs_needed(0.0, 0.2, BARS, concepts=1) == 36
    assert pairs_needed(0.0, 0.2, BARS, concepts=10) == 36  # each is ruled out at alpha
    # a drop of 0.05 is 0.05 away: 2.926^2 = 8.6
    assert pairs_needed(0.05, 0.05, BARS, concepts=1) == 10
    # a drop of 0.2 of ten concepts: (3.858 · 0.2 / 0.2)^2 = 14.9; over the margin: 2.56^2 = 6.6
    assert pairs_needed(0.2, 0.2, BARS, concepts=10) == 19
    # a drop of 0.12 stays over the margin from (1.282 · 0.05 / 0.02)^2 = 10.3 on
    assert pairs_needed(0.12, 0.05, BARS, concepts=1) == 11
    assert pairs_needed(0.5, 0.0, BARS, concepts=100) == 6  # z(0.9995)^2 / 2 = 5.4
    assert pairs_needed(0.5, 0.0, BARS, concepts=1) == 5  # 2^-5 is the first under 0.05


def test_near_the_margin_no_sample_size_decides() -> None:
    """(1.282 · 0.2 / 0.005)^2 = 2630, (2.926 · 0.2 / 0.01)^2 = 3426: more than anybody draws."""
    assert pairs_needed(0.1, 0.2, BARS, concepts=1) == 0
    assert pairs_needed(0.105, 0.2, BARS, concepts=1) == 0
    assert pairs_needed(0.09, 0.2, BARS, concepts=1) == 0


@pytest.mark.parametrize(("drop", "spread"), [(0.0, 0.2), (0.05, 0.05), (0.2, 0.2), (0.3, 0.05)])
def test_that_many_pairs_do_decide(drop: float, spread: float) -> None:
    """Nine of ten nights, by 100 of them; 3 standard errors are 9."""
    pairs = pairs_needed(drop, spread, BARS, concepts=10)
    decided = 0
    for night in range(100):
        before = {f"c{i}": [0.6] * pairs for i in range(10)}
        after = {f"c{i}": scores(0.6, 10 * night + i, pairs, spread) for i in range(10)}
        after["c0"] = [one - drop for one in after["c0"]]
        decided += compare(before, after, BARS)[0].health != "inconclusive"
    assert decided >= 81


def test_more_is_asked_for_than_there_was() -> None:
    """Undecided are drops near the margin; few of them too near for any number."""
    needed = []
    for night in range(200):
        before = scores(0.6, night, spread=0.03)
        lost = scores(0.085, 999 + night, spread=0.06)
        after = [old - drop for old, drop in zip(before, lost, strict=True)]
        (one,) = compare({"rex": before}, {"rex": after}, BARS)
        needed += [one.needed] if one.health == "inconclusive" else []
    assert len(needed) > 50
    assert all(one == 0 or one > 16 for one in needed)


def test_one_picture_tells_its_spread_among_others() -> None:
    """Drops 0.04 and -0.04: spread 0.057; rex: 0.06 away, (2.926 · 0.057 / 0.06)^2 = 7.6."""
    before = {"rex": [0.6], "mimi": [0.6]}
    rex, mimi = compare(before, {"rex": [0.56], "mimi": [0.64]}, BARS)
    assert (rex.health, rex.needed) == ("inconclusive", 9)  # and 1.35
    assert (mimi.health, mimi.needed) == ("inconclusive", 5)
    (alone,) = compare({"rex": [0.6]}, {"rex": [0.6]}, BARS)
    assert alone.needed == 10  # its spread is taken for the margin: 8.6 + 1.35


def test_error_rates_over_many_nights() -> None:
    """Ten concepts, twelve pairs, spread 0.05 a picture; each night has a release of its own."""
    any_drop, alarms, missed, nights = Bars(margin=1e-9), 0, 0, 200
    false_alarms = 0
    for night in range(nights):
        before = {f"c{i}": scores(0.6, night * 1000 + i, n=12) for i in range(10)}
        after = {f"c{i}": scores(0.6, night * 1000 + 500 + i, n=12) for i in range(10)}
        alarms += overall(compare(before, after, any_drop)) == "regressed"
        false_alarms += overall(compare(before, after, BARS)) == "regressed"
        after["c3"] = scores(0.45, night * 1000 + 900, n=12)
        missed += compare(before, after, BARS)[3].health != "regressed"
    # alpha 0.05 where any drop is an alarm: 10 of 200 expected, 3 standard errors more: 20
    assert alarms <= 20
    assert false_alarms == 0  # with a margin of two spreads
    assert missed <= 0.1 * nights


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(WrongShape, match="found 2 before and 1 after"):
        compare({"rex": [1, 2]}, {"rex": [1]}, BARS)
    with pytest.raises(WrongShape, match="finite"):
        compare({"rex": [float("nan")]}, {"rex": [1]}, BARS)
    with pytest.raises(WrongShape, match=r"found \['rex'\] and \['mimi'\]"):
        compare({"rex": [1]}, {"mimi": [1]}, BARS)


def test_overall_is_as_bad_as_the_worst() -> None:
    def one(health: str) -> Comparison:
        return Comparison("c", health, 0.0, 1.0, 8)  # type: ignore[arg-type]

    assert overall([one("healthy"), one("healthy")]) == "healthy"
    assert overall([one("healthy"), one("inconclusive")]) == "inconclusive"
    assert overall([one("inconclusive"), one("regressed")]) == "regressed"
