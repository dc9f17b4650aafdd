import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.drift import kid, paired_kid, seed_distance

X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
Y = torch.tensor([[1.0, 0.0], [1.0, 0.0]])


def test_seed_distance_is_one_minus_cosine_of_the_same_seed():
    now = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    base = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    # same direction 0; right angle 1; opposite 2; 45 degrees 1 - 0.7071
    assert seed_distance(now, base).tolist() == pytest.approx([0.0, 1.0, 2.0, 0.292893], abs=1e-6)


def test_seed_distance_of_equal_features_is_exactly_zero():
    features = torch.randn(50, 17, generator=torch.Generator().manual_seed(0))
    assert seed_distance(features, features).tolist() == [0.0] * 50


def test_seed_distance_refuses_unequal_numbers():
    with pytest.raises(WrongShape, match=r"base must have shape \(2, 2\), found \(1, 2\)"):
        seed_distance(X, X[:1])


def test_kid_by_hand():
    # d = 2, k(x, y) = (x·y / 2 + 1)³: same direction 1.5³ = 3.375, right angle 1.
    # within X: k(x1, x2) = 1 in both orders -> 1
    # within Y: k(y1, y2) = 3.375           -> 3.375
    # across: x1 with y1, y2: 3.375 each; x2 with both: 1 each -> (2 * 3.375 + 2) / 4 = 2.1875
    # 1 + 3.375 - 2 * 2.1875 = 0
    assert kid(X, Y) == pytest.approx(0.0)
    # Y with -Y: within both 3.375, across (-0.5 + 1)³ = 0.125 -> 6.75 - 0.25 = 6.5
    assert kid(Y, -Y) == pytest.approx(6.5)


def test_kid_takes_sets_of_different_size():
    # within {x1, x2, x1}: pairs 12, 13, 23 have 1, 3.375, 1 -> 5.375 / 3
    # within Y 3.375; across: rows x1 3.375, x2 1, x1 3.375 -> 7.75 / 3
    three = torch.cat([X, X[:1]])
    assert kid(three, Y) == pytest.approx(5.375 / 3 + 3.375 - 2 * 7.75 / 3)


def test_kid_is_not_clipped_and_not_biased():
    # 300 pairs of sets from one distribution: the estimator is 0 on average, so often negative.
    generator = torch.Generator().manual_seed(3)
    found = torch.tensor(
        [
            kid(torch.randn(8, 4, generator=generator), torch.randn(8, 4, generator=generator))
            for _ in range(300)
        ]
    )
    standard_error = found.std() / 300**0.5
    assert found.min() < 0
    assert abs(found.mean()) < 3 * standard_error


def test_kid_needs_two_pictures_a_side():
    assert kid(X[:1], Y) is None
    assert kid(X, Y[:1]) is None
    assert kid(X[:0], Y[:0]) is None


def test_paired_kid_by_hand():
    # Only i != j counts. within X 1, within Y 3.375; across x1-y2: 3.375, x2-y1: 1 -> mean 2.1875,
    # here equal to the full mean as both y are the same: 1 + 3.375 - 4.375 = 0.
    assert paired_kid(X, Y) == pytest.approx(0.0)
    # X against X with its rows swapped: across i != j are 3.375 both: 1 + 1 - 6.75 = -4.75
    assert paired_kid(X, X.flip(0)) == pytest.approx(-4.75)


def test_paired_kid_of_equal_pictures_is_exactly_zero_where_kid_is_biased():
    features = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    assert paired_kid(features, features) == 0.0
    assert kid(features, features) < 0


def test_paired_kid_needs_two_pairs():
    assert paired_kid(X[:1], Y[:1]) is None
