import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.bootstrap import Interval, hierarchical_interval, mean_interval, paired_interval


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_mean_is_that_of_the_sample():
    found = mean_interval([0.0, 1.0, 2.0, 5.0], generator=_seeded())
    assert found.mean == 2.0
    assert 0.0 <= found.low < 2.0 < found.high <= 5.0


def test_an_interval_of_two_values_by_hand():
    # resampled means of {0, 1}: 0, 0.5, 0.5, 1 with equal chance, so 2.5 % and 97.5 % are 0 and 1
    assert mean_interval([0.0, 1.0], generator=_seeded()) == Interval(0.5, 0.0, 1.0)


def test_equal_values_leave_no_doubt():
    assert mean_interval([0.25] * 5, generator=_seeded()) == Interval(0.25, 0.25, 0.25)


def test_one_value_has_a_mean_and_no_interval():
    assert mean_interval([0.3], generator=_seeded()) == Interval(0.3, None, None)
    assert hierarchical_interval([[0.3]], generator=_seeded()) == Interval(0.3, None, None)


def test_no_values_are_refused():
    with pytest.raises(WrongShape, match="expected at least one value in values, found none"):
        mean_interval([], generator=_seeded())
    with pytest.raises(WrongShape, match="expected values of at least one concept"):
        hierarchical_interval([], generator=_seeded())
    with pytest.raises(WrongShape, match="expected at least one value in a concept"):
        hierarchical_interval([[0.1], []], generator=_seeded())


def test_the_same_generator_gives_the_same_interval():
    values = torch.randn(20, generator=_seeded(5)).tolist()
    groups = [values[:7], values[7:12], values[12:]]
    assert mean_interval(values, generator=_seeded(1)) == mean_interval(
        values, generator=_seeded(1)
    )
    assert hierarchical_interval(groups, generator=_seeded(1)) == hierarchical_interval(
        groups, generator=_seeded(1)
    )
    assert mean_interval(values, generator=_seeded(1)) != mean_interval(
        values, generator=_seeded(2)
    )


def test_the_interval_contains_the_truth_about_as_often_as_it_says():
    # 200 samples of 40 values around 3: an interval of 95 % misses about 10, never 30 of them.
    generator = _seeded(7)
    hits = 0
    for _ in range(200):
        values = (3 + torch.randn(40, generator=generator)).tolist()
        found = mean_interval(values, generator=generator, resamples=400)
        hits += found.low <= 3 <= found.high
    assert 170 <= hits <= 199


def test_pairing_removes_what_the_pictures_share():
    # Every picture lost exactly 0.1, though the pictures differ widely: no doubt about the 0.1.
    before = [0.1, 0.5, 0.9, 0.3]
    after = [0.0, 0.4, 0.8, 0.2]
    found = paired_interval(before, after, generator=_seeded())
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_pairs_must_match():
    with pytest.raises(WrongShape, match="found 2 before and 1 after"):
        paired_interval([0.1, 0.2], [0.1], generator=_seeded())


def test_a_hierarchical_interval_is_about_other_concepts_too():
    # Two concepts without any spread inside: 0 and 1. Over pictures alone the mean would look as
    # sure as 8 values can make it; over concepts it is anything from 0 to 1.
    groups = [[0.0] * 50, [1.0] * 50]
    flat = mean_interval([value for group in groups for value in group], generator=_seeded())
    found = hierarchical_interval(groups, generator=_seeded())
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    assert flat.high - flat.low < 0.25


def test_a_hierarchical_mean_weighs_concepts_equally():
    assert hierarchical_interval([[1.0], [0.0, 0.0, 0.0]], generator=_seeded()).mean == 0.5


def test_a_hierarchical_interval_of_one_concept_is_that_of_its_pictures():
    # the same two values: 0, 0.5, 0.5 and 1 with equal chance
    assert hierarchical_interval([[0.0, 1.0]], generator=_seeded()) == Interval(0.5, 0.0, 1.0)


def test_a_small_concept_is_resampled_from_its_own_pictures_alone():
    # the padding of a shorter concept would pull the mean towards 0
    found = hierarchical_interval([[1.0], [1.0] * 5], generator=_seeded())
    assert found == Interval(1.0, 1.0, 1.0)
