"""Who moved, the model or its world, by numbers worked out by hand."""

import pytest

from l2dm.errors import WrongShape
from l2dm.metrics.health import Evidence, diagnose, largest
from l2dm.metrics.regression import Bars

BARS = Bars(margin=0.1, alpha=0.05, power=0.9)
RELEASED = (0.6, 0.5, 0.7, 0.6, 0.5, 0.7, 0.6, 0.6)
FRESH = (0.5, 0.6, 0.6, 0.7, 0.6, 0.6, 0.5, 0.7)


def lower(scores: tuple[float, ...], by: float) -> tuple[float, ...]:
    return tuple(score - by for score in scores)


def kept() -> Evidence:
    return Evidence(RELEASED, RELEASED, FRESH)


def test_the_same_pictures_are_healthy_and_say_so() -> None:
    found = diagnose({"rex": kept(), "mia": kept()}, 0.0, BARS)
    assert (found.health, found.cause) == ("healthy", "")
    assert found.reasons == ("All 2 concepts score what the release scored.",)
    assert [one.moved for one in found.findings] == [0.0, 0.0]
    assert found.findings[0].sentence == (
        "rex: the release's seeds give its scores again (0.600); fresh seeds 0.600"
    )


def test_luck_at_the_release_is_told_but_is_no_regression() -> None:
    """Eight pairs that all fall: one of 256 sign patterns, p = 1/256."""
    found = diagnose({"rex": Evidence(RELEASED, RELEASED, lower(RELEASED, 0.2))}, 0.0, BARS)
    assert found.health == "healthy"
    assert found.findings[0].sentence.endswith(
        "fresh seeds 0.400, 0.200 lower (p = 0.0039): the release was lucky in its seeds"
    )


def test_a_changed_concept_is_tested_over_both_drawings() -> None:
    """Sixteen pairs that all fall: p = 1/65536, and only what changed shares the correction."""
    damaged = Evidence(RELEASED, lower(RELEASED, 0.3), lower(RELEASED, 0.3))
    found = diagnose({"rex": kept(), "mia": damaged, "bo": kept()}, 0.0, BARS)
    assert (found.health, found.cause) == ("regressed", "model")
    (mia,) = [one for one in found.findings if one.health == "regressed"]
    assert (mia.concept, mia.pairs) == ("mia", 16)
    assert mia.p == pytest.approx(1 / 65536, abs=1e-6)
    assert mia.drop == pytest.approx(0.3)
    assert found.reasons == (mia.sentence,)


def test_a_change_that_costs_nothing_is_healthy() -> None:
    moved = Evidence(RELEASED, tuple(score + 0.01 for score in RELEASED), FRESH)
    found = diagnose({"rex": moved}, 0.0, BARS)
    assert (found.health, found.cause) == ("healthy", "")
    assert found.findings[0].moved == pytest.approx(0.01)


def test_a_moved_base_blames_the_environment() -> None:
    damaged = Evidence(RELEASED, lower(RELEASED, 0.3), lower(RELEASED, 0.3))
    found = diagnose({"rex": damaged}, 0.04, BARS)
    assert (found.health, found.cause) == ("regressed", "environment")
    assert "up to 0.040 apart on the same seeds" in found.reasons[0]
    assert "a rollback would not help" in found.reasons[0]


def test_too_few_pictures_are_inconclusive_and_say_how_many_would_do() -> None:
    """One picture gives two pairs: the least p is 1/4."""
    found = diagnose({"rex": Evidence((0.6,), (0.3,), (0.35,))}, 0.0, BARS)
    assert (found.health, found.cause) == ("inconclusive", "model")
    assert found.findings[0].needed >= 5  # 2^-5 is the first under 0.05
    assert found.findings[0].sentence.endswith(f"{found.findings[0].needed} pairs would decide")


def test_a_line_without_concepts_is_healthy() -> None:
    assert diagnose({}, 0.0, BARS).health == "healthy"


def test_pictures_that_went_missing_are_an_error() -> None:
    with pytest.raises(WrongShape, match="expected pairs of scores, found 2 and 1"):
        largest((0.1, 0.2), (0.1,))
