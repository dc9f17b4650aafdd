"""What became of a concept after later tasks. Higher scores are better throughout.

`matrix[i][j]` is the score on concept j of the model after row i; row 0 is the base, concept j is
learned in row j + 1, T = number of concepts. Missing numbers are None or NaN, never 0: a function
of one concept returns None for them, a function of the whole matrix raises WrongShape.
Source: docs/methods.md, Scores; inputs are never changed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from l2dm.doors import Matrix, Measurement
from l2dm.errors import WrongShape

MIN_GAIN = 0.02  # a concept that rose less above the base was not learned

Cells = Mapping[tuple[str, str], Mapping[tuple[str, int], float]]


@dataclass(frozen=True)
class Drop:
    """A concept's peak before the last row, and what is left of it.

    `row` is the peak's row number. `before` and `after`, where known, are the values of the same
    pictures (prompt and seed) in the peak's row and in the last one.
    """

    row: int
    peak: float
    now: float
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()

    @property
    def amount(self) -> float:
        """Peak minus final; negative when the concept got better."""
        return self.peak - self.now


def number(value: float | None) -> float | None:
    """The value, or None when it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else value


def drop(matrix: Matrix, concept: int) -> Drop | None:
    """Forgetting of one concept: max over j <= i < T of R[i, j], minus R[T, j].

    None for the concept learned last, which no later task could touch, and when a number is
    missing.
    """
    require_triangle(matrix)
    learned, last = concept + 1, len(matrix) - 1
    earlier = [number(matrix[row][concept]) for row in range(learned, last)]
    now = number(matrix[last][concept])
    present = [value for value in earlier if value is not None]
    if now is None or not earlier or len(present) < len(earlier):
        return None
    peak = max(present)
    return Drop(learned + present.index(peak), peak, now)


def paired_drop(cells: Cells, rows: Sequence[str], name: str, learned: int) -> Drop | None:
    """As `drop`, from the pictures that both rows drew, so that a smaller budget is no forgetting.

    cells: from `by_cell`. learned: number of the row in which the concept was learned. None for
    the concept learned last and when a row shares no picture with the last.
    """
    final = cells.get((rows[-1], name), {})
    drops: list[Drop] = []
    for row in range(learned, len(rows) - 1):
        found = cells.get((rows[row], name), {})
        both = [key for key in found if key in final]
        if not both:
            return None
        before, after = (tuple(side[key] for key in both) for side in (found, final))
        drops.append(Drop(row, fmean(before), fmean(after), before, after))
    return max(drops, key=lambda found: found.amount) if drops else None


def by_cell(measurements: Sequence[Measurement], metric: str) -> Cells:
    """One metric of every concept's pictures: (row, concept) -> (prompt, seed) -> value."""
    cells: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    for one in measurements:
        measured = number(one.metrics.get(metric))
        if one.concept is not None and measured is not None:
            cells.setdefault((one.row, one.concept), {})[one.prompt, one.seed] = measured
    return cells


def drops(
    matrix: Matrix, rows: Sequence[str], names: Sequence[str], cells: Cells
) -> tuple[Drop | None, ...]:
    """One drop per concept: paired where the pictures are known, else from the matrix."""
    found = []
    for index, name in enumerate(names):
        coarse = drop(matrix, index)
        paired = paired_drop(cells, rows, name, index + 1)
        found.append(paired if coarse is not None and paired is not None else coarse)
    return tuple(found)


def forgetting(matrix: Matrix) -> float | None:
    """F: mean drop over the concepts j < T; None with fewer than two concepts."""
    complete(matrix)
    found = [drop(matrix, concept) for concept in range(len(matrix[0]) - 1)]
    return _mean([one.amount for one in found if one is not None])


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT: mean over j < T of R[T, j] - R[j, j]; None with fewer than two concepts."""
    scores = complete(matrix)
    past = range(len(scores) - 2)
    return _mean([scores[-1][concept] - scores[concept + 1][concept] for concept in past])


def relative_drop(matrix: Matrix, concept: int, *, min_gain: float = MIN_GAIN) -> float | None:
    """(R[j, j] - R[T, j]) / (R[j, j] - R[0, j]): 0 = kept, 1 = back to the base model.

    None for the last concept, when a number is missing, and when the concept rose by less than
    `min_gain` above the base: the share of nothing that was lost is not a number.
    """
    require_triangle(matrix)
    column = [number(matrix[row][concept]) for row in (0, concept + 1, len(matrix) - 1)]
    base, learned, now = column
    if concept + 1 == len(matrix) - 1 or base is None or learned is None or now is None:
        return None
    gain = learned - base
    return (learned - now) / gain if gain >= min_gain else None


def relative_forgetting(matrix: Matrix, *, min_gain: float = MIN_GAIN) -> float | None:
    """RF: mean relative drop over the concepts j < T that were learned; None when there is none."""
    complete(matrix, with_base=True)
    found = [
        relative_drop(matrix, concept, min_gain=min_gain) for concept in range(len(matrix[0]) - 1)
    ]
    return _mean([one for one in found if one is not None])


def pooled_relative_forgetting(matrices: Sequence[Matrix]) -> float | None:
    """What was lost as a share of what was gained, over all concepts j < T of several runs.

    sum (R[j, j] - R[T, j]) / sum (R[j, j] - R[0, j]): the ratio of means, where RF is the mean of
    ratios; a concept that was hardly learned weighs hardly anything. Ours, beside F.2. None when
    nothing was gained.
    """
    lost = gained = 0.0
    for matrix in matrices:
        scores = complete(matrix, with_base=True)
        for concept in range(len(scores) - 2):
            learned = scores[concept + 1][concept]
            lost += learned - scores[-1][concept]
            gained += learned - scores[0][concept]
    return lost / gained if gained > 0 else None


def final_average(matrix: Matrix) -> float | None:
    """AA: mean over all concepts after the last task; None without concepts."""
    return _mean(list(complete(matrix)[-1]))


def average_incremental(matrix: Matrix) -> float | None:
    """AIA: mean over tasks of the average over the concepts learned so far."""
    return _mean([fmean(row) for row in complete(matrix)[1:]])


def learning_accuracy(matrix: Matrix) -> float | None:
    """LA: mean score of a concept right after it was learned."""
    scores = complete(matrix)
    return _mean([row[-1] for row in scores[1:]])


def require_triangle(matrix: Matrix) -> None:
    """Raise WrongShape unless the matrix has the base's row and one row a concept."""
    width = len(matrix) - 1
    if width < 0 or any(len(row) != width for row in matrix):
        found = [len(row) for row in matrix]
        raise WrongShape(
            "a matrix has the base's row, then one row a concept, each as wide as there are "
            f"concepts; found {len(matrix)} rows of widths {found}"
        )


def complete(matrix: Matrix, *, with_base: bool = False) -> tuple[tuple[float, ...], ...]:
    """The lower triangle without gaps: row i has i numbers; row 0 has all or, by default, none.

    Raises WrongShape when one of them is missing: a summary over the rest would be another number.
    """
    require_triangle(matrix)
    rows = []
    for index, row in enumerate(matrix):
        wanted = [number(value) for value in (row if with_base and not index else row[:index])]
        present = tuple(value for value in wanted if value is not None)
        if len(present) < len(wanted):
            raise WrongShape(
                f"expected a number in every cell of the lower triangle, found none in row {index} "
                f"for concept {wanted.index(None)} (both from 0); evaluate that row again"
            )
        rows.append(present)
    return tuple(rows)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
