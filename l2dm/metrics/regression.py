"""Does a released model still score what it scored? Paired tests over its concepts.

Pairs are pictures of one prompt, drawn at release and drawn now. Under "nothing changed" the two of
a pair may be swapped, so the test flips signs of differences (Fisher's randomisation test): exact,
and without an assumption about how scores are spread. Testing many concepts is corrected by Holm's
step-down procedure (Holm 1979), so that a whole night raises a false alarm at most with `alpha`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal, Protocol

import torch

from l2dm.errors import WrongShape

EXACT = 16  # pairs up to which all 2^n sign patterns are counted
FLIPS = 100_000  # sign patterns drawn beyond that

Health = Literal["healthy", "regressed", "inconclusive"]


@dataclass(frozen=True)
class Bars:
    """What counts as forgotten. margin: a drop that matters, over 0; alpha, power in (0, 1)."""

    margin: float = 0.1
    alpha: float = 0.05
    power: float = 0.9


@dataclass(frozen=True)
class Finding:
    """One concept: mean drop since release, its corrected p-value, and what follows.

    needed: pairs that would decide, where these do not; 0 where they do.
    """

    concept: str
    health: Health
    drop: float
    p: float
    pairs: int
    needed: int = 0

    @property
    def sentence(self) -> str:
        """The finding with its numbers."""
        moved = f"{'lost' if self.drop >= 0 else 'gained'} {abs(self.drop):.3f}"
        told = f"{self.concept}: {moved} over {self.pairs} pairs (p = {self.p:.4f} of all concepts)"
        if self.health == "inconclusive":
            return f"{told}; {self.needed} pairs would decide"
        return f"{told}: {self.health}"


def drop_p(before: Sequence[float], after: Sequence[float], *, margin: float = 0.0) -> float:
    """Probability of so large a mean drop if the true one is `margin`: one-sided sign-flip test.

    before, after: scores of the same n pairs. Exact up to 16 pairs, else over 100,000 fixed random
    patterns (the observed one counted). Raises WrongShape.
    """
    differences = torch.tensor(_paired(before, after), dtype=torch.float64) - margin
    if len(differences) <= EXACT:
        patterns = torch.arange(2 ** len(differences))
        signs = 1.0 - 2.0 * ((patterns[:, None] >> torch.arange(len(differences))) & 1)
    else:
        generator = torch.Generator().manual_seed(0)
        flipped = torch.randint(0, 2, (FLIPS, len(differences)), generator=generator)
        signs = torch.cat([torch.ones(1, len(differences)), 1.0 - 2.0 * flipped])
    sums = signs.double() @ differences
    # a hair of tolerance, so that equal sums in another order of addition count as equal
    return float((sums >= differences.sum() - 1e-12).double().mean())


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p-values: compared with alpha, at most alpha of families have a false one."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p}


def examine(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], bars: Bars
) -> tuple[Finding, ...]:
    """A finding for every concept; before, after: its scores pair by pair. Raises WrongShape.

    Regressed: a drop of at least the margin that chance does not explain. Healthy: a drop as large
    as the margin can be ruled out (each at alpha: all must pass, which needs no correction).
    """
    if set(before) != set(after):
        raise WrongShape(
            f"expected the same concepts before and after, found {sorted(before)} and "
            f"{sorted(after)}"
        )
    adjusted = holm({name: drop_p(before[name], after[name]) for name in before})
    return tuple(_finding(name, before[name], after[name], adjusted[name], bars) for name in before)


class HasHealth(Protocol):
    """Anything that is healthy, regressed or inconclusive."""

    @property
    def health(self) -> str:
        """One of `Health`."""
        ...


def overall(findings: Sequence[HasHealth]) -> Health:
    """Regressed if one concept is, healthy if all are, else inconclusive."""
    kinds = {finding.health for finding in findings}
    if "regressed" in kinds:
        return "regressed"
    return "inconclusive" if "inconclusive" in kinds else "healthy"


def pairs_needed(spread: float, bars: Bars, concepts: int) -> int:
    """Pairs at which a drop of the margin is found with `power`, at alpha over all concepts.

    spread: standard deviation of the pairs' differences. Normal approximation, never fewer than
    the sign-flip test needs to reach its corrected alpha at all.
    """
    alpha = bars.alpha / max(1, concepts)
    quantiles = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(bars.power)
    least = math.ceil(math.log2(1 / alpha))
    return max(least, math.ceil((quantiles * spread / bars.margin) ** 2))


def _finding(
    name: str, before: Sequence[float], after: Sequence[float], p: float, bars: Bars
) -> Finding:
    differences = _paired(before, after)
    drop, pairs = fmean(differences), len(differences)
    if p <= bars.alpha and drop >= bars.margin:
        return Finding(name, "regressed", drop, p, pairs)
    # the mirrored test: how likely is so small a drop if the true one is the margin
    if drop_p(after, before, margin=-bars.margin) <= bars.alpha:
        return Finding(name, "healthy", drop, p, pairs)
    spread = stdev(differences) if pairs > 1 else bars.margin
    return Finding(name, "inconclusive", drop, p, pairs, pairs_needed(spread, bars, 1))


def _paired(before: Sequence[float], after: Sequence[float]) -> list[float]:
    if len(before) != len(after) or not before:
        raise WrongShape(
            f"expected pairs of scores, found {len(before)} before and {len(after)} after"
        )
    differences = [old - new for old, new in zip(before, after, strict=True)]
    if not all(math.isfinite(one) for one in differences):
        raise WrongShape(
            "expected finite scores in every pair, found one that is not; evaluate that row again"
        )
    return differences
