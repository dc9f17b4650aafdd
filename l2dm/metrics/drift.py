"""How far generated pictures moved: per seed, and as a distribution."""

import torch
from torch import Tensor

from l2dm.files.shapes import expect_shape


def seed_distance(now: Tensor, base: Tensor) -> Tensor:
    """1 - cosine between the two pictures of every seed, (n,), in [0, 2].

    now, base: (n, d), row i of both from the same prompt and seed. Equal rows give exactly 0.
    Source: prior drift of docs/methods.md.
    """
    expect_shape(now, "n d", name="now")
    expect_shape(base, "n d", name="base", like=now)
    first, second = (torch.nn.functional.normalize(side.double(), dim=1) for side in (now, base))
    # For unit vectors 1 - cosine = |difference|² / 2, and this form is exactly 0 for equal rows.
    return (first - second).square().sum(1) / 2


def kid(first: Tensor, second: Tensor) -> float | None:
    """Unbiased squared MMD of two independent sets, cubic polynomial kernel; not times 1000.

    first: (m, d), second: (n, d). May be negative, which is not clipped; None below two rows in
    either. Source: Binkowski et al. 2018.
    """
    expect_shape(first, "m d", name="first")
    expect_shape(second, f"n {first.shape[1]}", name="second")
    if min(len(first), len(second)) < 2:
        return None
    within = _mean_off_diagonal(_kernel(first, first)) + _mean_off_diagonal(_kernel(second, second))
    return float(within - 2 * _kernel(first, second).mean())


def paired_kid(first: Tensor, second: Tensor) -> float | None:
    """Unbiased squared MMD of two sets that share their seeds: row i of one belongs to row i.

    first, second: (n, d). As `kid`, but the cross term leaves out i = j as well: a pair is not
    independent, so `kid` would be biased towards "no drift". Equal sets give exactly 0; may be
    negative; None below two pairs. Source: Gretton et al. 2012, Lemma 6, equation 4.
    """
    expect_shape(first, "n d", name="first")
    expect_shape(second, "n d", name="second", like=first)
    if len(first) < 2:
        return None
    within = _kernel(first, first) + _kernel(second, second)  # (n, n)
    across = _kernel(first, second)
    return float(_mean_off_diagonal(within - across - across.T))


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    """k(x, y) = (x·y / d + 1)³, (m, n)."""
    return (first.double() @ second.double().T / first.shape[1] + 1) ** 3


def _mean_off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.diagonal().sum()) / (count * (count - 1))
