import math

import pytest

from l2dm.doors import Measurement
from l2dm.errors import WrongShape
from l2dm.metrics import forgetting as f

# Three concepts. Rows: base, then after task 1, 2, 3.
MATRIX = (
    (0.10, 0.20, 0.30),
    (0.50, None, None),
    (0.60, 0.80, None),
    (0.40, 0.70, 0.90),
)


def test_a_drop_is_peak_minus_final():
    # concept 0: learned at 0.5, peak 0.6 after row 2, now 0.4
    found = f.drop(MATRIX, 0)
    assert (found.row, found.peak, found.now) == (2, 0.6, 0.4)
    assert found.amount == pytest.approx(0.2)
    assert f.drop(MATRIX, 1).amount == pytest.approx(0.1)


def test_the_concept_learned_last_has_no_drop():
    assert f.drop(MATRIX, 2) is None


def test_the_peak_lies_before_the_last_row_so_a_drop_may_be_negative():
    better = ((0.0, 0.0), (0.5, None), (0.7, 0.6))
    assert f.drop(better, 0).amount == pytest.approx(-0.2)


def test_the_base_row_is_no_peak():
    assert f.drop(((0.9, 0.0), (0.5, None), (0.5, 0.6)), 0).amount == 0


def test_forgetting_is_the_mean_drop():
    assert f.forgetting(MATRIX) == pytest.approx((0.2 + 0.1) / 2)


def test_backward_transfer_compares_with_the_moment_of_learning():
    # (0.4 - 0.5 + 0.7 - 0.8) / 2
    assert f.backward_transfer(MATRIX) == pytest.approx(-0.1)


def test_relative_forgetting_by_hand():
    # concept 0: (0.5 - 0.4) / (0.5 - 0.1) = 0.25; concept 1: (0.8 - 0.7) / (0.8 - 0.2) = 1/6
    assert f.relative_forgetting(MATRIX) == pytest.approx((0.25 + 1 / 6) / 2)


def test_pooled_relative_forgetting_is_a_ratio_of_sums():
    # lost: 0.1 + 0.1 of one run, 0.1 of the other; gained: 0.4 + 0.6, and 0.01
    other = ((0.10, 0.0), (0.11, None), (0.01, 0.6))
    assert f.pooled_relative_forgetting([MATRIX, other]) == pytest.approx(0.3 / 1.01)
    assert f.pooled_relative_forgetting([((0.5, 0.0), (0.5, None), (0.1, 0.6))]) is None


def test_relative_forgetting_is_0_when_kept_and_1_when_back_to_the_base():
    kept = ((0.1, 0.0), (0.5, None), (0.5, 0.6))
    lost = ((0.1, 0.0), (0.5, None), (0.1, 0.6))
    assert f.relative_forgetting(kept) == 0
    assert f.relative_forgetting(lost) == 1


def test_a_concept_that_was_never_learned_has_no_relative_drop():
    # concept 0 rose by 0.01 only; concept 1: (0.8 - 0.5) / (0.8 - 0.2) = 0.5
    matrix = ((0.10, 0.2, 0.0), (0.11, None, None), (0.2, 0.8, None), (0.05, 0.5, 0.9))
    assert f.relative_drop(matrix, 0) is None
    assert f.relative_forgetting(matrix) == pytest.approx(0.5)
    assert f.relative_drop(matrix, 0, min_gain=0.005) == pytest.approx(6.0)


def test_averages_by_hand():
    assert f.final_average(MATRIX) == pytest.approx((0.4 + 0.7 + 0.9) / 3)
    # rows: 0.5; (0.6 + 0.8) / 2 = 0.7; 2 / 3
    assert f.average_incremental(MATRIX) == pytest.approx((0.5 + 0.7 + 2 / 3) / 3)
    assert f.learning_accuracy(MATRIX) == pytest.approx((0.5 + 0.8 + 0.9) / 3)


def test_with_one_concept_nothing_can_be_forgotten():
    one = ((0.1,), (0.7,))
    assert f.final_average(one) == f.learning_accuracy(one) == f.average_incremental(one) == 0.7
    assert f.forgetting(one) is f.backward_transfer(one) is f.relative_forgetting(one) is None


def test_without_concepts_nothing_is_known():
    summaries = (
        f.final_average,
        f.average_incremental,
        f.learning_accuracy,
        f.forgetting,
        f.backward_transfer,
        f.relative_forgetting,
    )
    assert [summary(((),)) for summary in summaries] == [None] * 6


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_a_missing_number_is_refused_and_never_0(gap):
    holes = ((0.1, 0.2, 0.3), (0.5, None, None), (gap, 0.8, None), (0.4, 0.7, 0.9))
    assert f.drop(holes, 0) is None
    for summary in (f.forgetting, f.backward_transfer, f.final_average, f.relative_forgetting):
        with pytest.raises(WrongShape, match="found none in row 2 for concept 0"):
            summary(holes)


def test_only_relative_forgetting_needs_the_base_row():
    holes = ((None, 0.2, 0.3), *MATRIX[1:])
    assert f.final_average(holes) == f.final_average(MATRIX)
    assert f.relative_drop(holes, 0) is None
    with pytest.raises(WrongShape, match="found none in row 0 for concept 0"):
        f.relative_forgetting(holes)


def test_a_ragged_matrix_is_refused():
    with pytest.raises(WrongShape, match=r"found 2 rows of widths \[2, 1\]"):
        f.forgetting(((0.1, 0.2), (0.5,)))
    with pytest.raises(WrongShape, match="found 0 rows"):
        f.drop((), 0)


ROWS = ("base", "t1", "t2", "t3")


def _value(row, concept, seed, similarity):
    return Measurement(row, "p", seed, {"identity_similarity": similarity}, concept=concept)


VALUES = (
    _value("t1", "rex", 1, 0.6),
    _value("t1", "rex", 2, 0.4),
    _value("t1", "rex", 3, 0.9),  # no later row drew seed 3: the budget became smaller
    _value("t2", "rex", 1, 0.7),
    _value("t2", "rex", 2, 0.1),
    _value("t3", "rex", 1, 0.5),
    _value("t3", "rex", 2, 0.2),
    Measurement("t3", "p", 1, {"distance": 0.1}, noun="dog"),
)


def test_a_paired_drop_compares_the_pictures_that_both_rows_drew():
    cells = f.by_cell(VALUES, "identity_similarity")
    found = f.paired_drop(cells, ROWS, "rex", 1)
    # t1 on seeds 1, 2: 0.5; t2: 0.4; t3: 0.35 -> the peak is t1, the drop 0.15
    assert found.row == 1
    assert found.amount == pytest.approx(0.15)
    assert (found.before, found.after) == ((0.6, 0.4), (0.5, 0.2))


def test_pictures_that_did_not_change_have_no_drop_under_a_smaller_budget():
    values = [_value("t1", "rex", seed, seed / 10) for seed in range(1, 5)]
    values += [_value("t2", "rex", seed, seed / 10) for seed in range(1, 3)]
    cells = f.by_cell(values, "identity_similarity")
    assert f.paired_drop(cells, ("base", "t1", "t2"), "rex", 1).amount == 0
    # while the means of the two rows differ: 0.25 against 0.15


def test_a_paired_drop_needs_shared_pictures():
    cells = f.by_cell(VALUES, "identity_similarity")
    assert f.paired_drop(cells, ROWS, "mia", 2) is None
    assert f.paired_drop(cells, ROWS, "rex", 3) is None  # learned last


def test_drops_fall_back_to_the_matrix():
    names = ("rex", "mia", "kit")
    found = f.drops(MATRIX, ROWS, names, f.by_cell(VALUES, "identity_similarity"))
    assert [None if one is None else round(one.amount, 6) for one in found] == [0.15, 0.1, None]
