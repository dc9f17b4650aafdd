"""Who moved, the model or its world, by numbers worked out by hand."""

import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.health import Evidence, diagnose, largest
from l2dm.metrics.paired_test import Bars

BARS = Bars(margin=0.1, alpha=0.05, power=0.9)
RELEASED = (0.6, 0.5, 0.7, 0.6, 0.5, 0.7, 0.6, 0.6)
FRESH = (0.5, 0.6, 0.6, 0.7, 0.6, 0.6, 0.5, 0.7)
ELSEWHERE = 0.04  # how far the bare base moved where libraries or hardware did


def lower(scores: tuple[float, ...], by: float) -> tuple[float, ...]:
    return tuple(score - by for score in scores)


def kept() -> Evidence:
    return Evidence(RELEASED, RELEASED, FRESH)


def lost(by: float, pictures: int = 8) -> Evidence:
    now = lower(RELEASED[:pictures], by)
    return Evidence(RELEASED[:pictures], now, now)


def test_the_same_pictures_are_healthy_and_say_so() -> None:
    found = diagnose({"rex": kept(), "mia": kept()}, 0.0, BARS)
    assert (found.health, found.cause) == ("healthy", "")
    assert found.reasons == ("All 2 concepts score what the release scored.",)
    assert [(one.moved, one.drop, one.p) for one in found.findings] == [(0.0, 0.0, 1.0)] * 2
    assert found.findings[0].sentence == (
        "rex: the release's seeds give its scores again (0.600); fresh seeds 0.600"
    )


def test_luck_at_the_release_is_told_but_is_no_regression() -> None:
    """Eight pairs that all fall: one of 256 sign patterns, p = 1/256."""
    found = diagnose({"rex": Evidence(RELEASED, RELEASED, lower(RELEASED, 0.2))}, 0.0, BARS)
    assert found.health == "healthy"
    assert found.findings[0].sentence.endswith(
        "fresh seeds 0.400, 0.200 lower (p = 0.0039): the release was lucky"
    )


def test_in_the_same_environment_a_drop_needs_no_test() -> None:
    """The same seeds under the same libraries: three pictures that fall by 0.3 are a fact."""
    found = diagnose({"rex": kept(), "mia": lost(0.3, 3), "bo": kept()}, 0.0, BARS)
    assert (found.health, found.cause) == ("regressed", "model")
    (mia,) = [one for one in found.findings if one.health == "regressed"]
    assert (mia.concept, mia.pairs, mia.p) == ("mia", 3, 0.0)
    assert mia.drop == pytest.approx(0.3)
    assert mia.sentence == (
        "mia: lost 0.300 over 3 pictures of the release's seeds (the same environment): regressed; "
        "fresh seeds 0.300"
    )
    assert found.reasons == (mia.sentence,)


def test_a_concept_that_was_wiped_out_is_found_among_a_hundred_by_one_picture() -> None:
    evidence = {f"c{i}": Evidence((0.8,), (0.8,), (0.7,)) for i in range(100)}
    evidence["c7"] = Evidence((0.8,), (0.02,), (0.05,))
    found = diagnose(evidence, 0.0, BARS)
    assert (found.health, found.cause) == ("regressed", "model")
    assert found.reasons == (
        "c7: lost 0.780 over 1 picture of the release's seeds (the same environment): regressed; "
        "fresh seeds 0.050",
    )


def test_a_change_that_costs_little_is_healthy_but_told() -> None:
    moved = Evidence(RELEASED, tuple(score + 0.01 for score in RELEASED), FRESH)
    found = diagnose({"rex": moved, "mia": kept()}, 0.0, BARS)
    assert (found.health, found.cause) == ("healthy", "")
    assert found.findings[0].moved == pytest.approx(0.01)
    assert found.reasons == (found.findings[0].sentence,)
    assert found.reasons[0].startswith("rex: gained 0.010 over 8 pictures of the release's seeds")


def test_fresh_seeds_do_not_judge_a_model_that_moved_but_are_told() -> None:
    """The release's seeds lost 0.01, all of eight fresh ones 0.19 more: p = 1/256."""
    hidden = Evidence(RELEASED, lower(RELEASED, 0.01), lower(RELEASED, 0.2))
    for control in (0.0, ELSEWHERE):
        found = diagnose({"rex": hidden}, control, BARS)
        assert found.health == "healthy"
        assert found.findings[0].drop == pytest.approx(0.01)
        assert found.findings[0].sentence.endswith(
            "fresh seeds 0.400, 0.190 lower (p = 0.0039): "
            "lucky seeds at the release, or a loss that they do not show"
        )


def test_the_same_lucky_release_is_no_alarm_night_after_night() -> None:
    """Another rounding moves every picture by 0.01; the release's seeds score 0.15 over others."""
    again = tuple(score - 0.01 * (-1) ** i for i, score in enumerate(RELEASED))
    for night in range(20):
        draw = torch.Generator().manual_seed(night)
        fresh = (0.45 + 0.1 * torch.randn(8, generator=draw)).tolist()
        found = diagnose({"rex": Evidence(RELEASED, again, fresh)}, ELSEWHERE, BARS)
        assert found.health == "healthy"


def test_in_another_environment_a_drop_is_tested() -> None:
    """Eight pairs that all fall: p = 1/256."""
    found = diagnose({"rex": lost(0.3)}, ELSEWHERE, BARS)
    assert (found.health, found.cause) == ("regressed", "environment")
    assert "up to 0.040 apart on the same seeds" in found.reasons[0]
    assert "a rollback would not help" in found.reasons[0]
    assert found.reasons[1] == (
        "rex: lost 0.300 over 8 pictures of the release's seeds "
        "(p = 0.0039 of all concepts): regressed; fresh seeds 0.300"
    )


def test_too_few_pictures_are_inconclusive_and_say_how_many_would_do() -> None:
    """Three pairs: the least p is 1/8. Five: 1/32, the first under 0.05."""
    found = diagnose({"rex": lost(0.3, 3)}, ELSEWHERE, BARS)
    assert (found.health, found.cause) == ("inconclusive", "environment")
    assert found.findings[0].needed == 5
    assert "; 5 pictures would decide; " in found.reasons[1]
    assert found.reasons[2] == (
        "How many pictures there are is settled at a release: for N of each concept, learn the "
        "next one with evaluate.pictures=N and evaluate.budget=2*N."
    )


def test_a_hundred_concepts_in_another_environment_say_what_they_would_need() -> None:
    """One picture each: p is never under 1/2. The one that lost most is told first.

    Spread over all: 0.77 / 10 = 0.077. (3.29 + 1.28)^2 · (0.077 / 0.78)^2 + 3.29^2 / 2 = 5.6.
    """
    evidence = {f"c{i}": Evidence((0.8,), (0.79,), (0.7,)) for i in range(100)}
    evidence["c7"] = Evidence((0.8,), (0.02,), (0.05,))
    found = diagnose(evidence, ELSEWHERE, BARS)
    assert (found.health, found.cause) == ("inconclusive", "environment")
    assert found.reasons[1].startswith("c7: lost 0.780 over 1 picture")
    assert found.findings[7].needed == 6
    assert found.reasons[-1].endswith("evaluate.pictures=N and evaluate.budget=101*N.")


def test_what_is_at_the_margin_says_that_no_number_decides() -> None:
    """Drops 0.199 and -0.001 in turn: 0.001 under the margin, spread 0.1."""
    now = tuple(old - (0.199, -0.001)[i % 2] for i, old in enumerate(RELEASED))
    found = diagnose({"rex": Evidence(RELEASED, now, RELEASED)}, ELSEWHERE, BARS)
    assert (found.health, found.findings[0].needed) == ("inconclusive", 0)
    assert "; too near the margin for any number of pictures to decide; " in found.reasons[1]


def test_the_worst_is_told_first() -> None:
    evidence = {"rex": lost(0.09, 3), "mia": lost(0.3, 3), "bo": lost(0.2, 3)}
    reasons = diagnose(evidence, ELSEWHERE, BARS).reasons
    assert [reason.split(":")[0] for reason in reasons[1:4]] == ["mia", "bo", "rex"]


def test_a_line_without_concepts_is_healthy() -> None:
    assert diagnose({}, 0.0, BARS).health == "healthy"
    assert diagnose({}, ELSEWHERE, BARS).health == "healthy"


def test_pictures_that_went_missing_are_an_error() -> None:
    with pytest.raises(WrongShape, match="expected pairs of scores, found 2 and 1"):
        largest((0.1, 0.2), (0.1,))


def redrawn(
    seed: int, alike: float, common: float = 0.0, damage: float = 0.0
) -> dict[str, Evidence]:
    """Ten concepts in another environment: nothing was forgotten, but for `damage` of concept c0.

    Every drawing has spread 0.15; `alike`: what the two on the release's seeds share of its
    variance; `common`: what the pictures of one seed share of it, over concepts. One release is
    compared with both drawings.
    """
    draw = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        own = torch.randn(10, 8, generator=draw)
        return common**0.5 * torch.randn(1, 8, generator=draw) + (1 - common) ** 0.5 * own

    shared = noise()
    release, now = (alike**0.5 * shared + (1 - alike) ** 0.5 * noise() for _ in range(2))
    drawn = 0.6 + 0.15 * torch.stack([release, now, noise()])  # (3, 10, 8)
    drawn[1:, 0] -= damage
    return {f"c{i}": Evidence(*drawn[:, i].tolist()) for i in range(10)}


@pytest.mark.parametrize(("alike", "common"), [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.98, 0.5)])
def test_at_most_alpha_of_nights_are_called_regressed_by_chance(
    alike: float, common: float
) -> None:
    """Of 300 nights 15 are expected at most; 3 standard errors, 11, more."""
    nights = [diagnose(redrawn(seed, alike, common), ELSEWHERE, BARS) for seed in range(300)]
    assert sum(night.health == "regressed" for night in nights) <= 26


@pytest.mark.parametrize(("alike", "damage"), [(0.0, 0.35), (0.98, 0.2)])
def test_what_was_forgotten_is_found_in_another_environment(alike: float, damage: float) -> None:
    nights = [diagnose(redrawn(seed, alike, damage=damage), ELSEWHERE, BARS) for seed in range(50)]
    assert sum(night.findings[0].health == "regressed" for night in nights) >= 45


def test_nights_in_the_same_environment_raise_no_alarm_whatever_fresh_seeds_say() -> None:
    for seed in range(50):
        night = {n: Evidence(e.released, e.released, e.fresh) for n, e in redrawn(seed, 0).items()}
        assert diagnose(night, 0.0, BARS).health == "healthy"
