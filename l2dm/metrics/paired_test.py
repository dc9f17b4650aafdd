"""Does a released model still score what it scored? Paired tests over its concepts.

A pair is one picture: its score at release and its score now. Under "nothing changed" the two may
be swapped, so the test flips signs of differences (Fisher's randomisation test): exact, and without
an assumption about how scores are spread. Many concepts are corrected for together: a sign is
flipped in all of them at once and each is compared with the largest of them (Westfall and Young
1993), so that a whole check raises a false alarm at most with `alpha`, however its concepts move
together, and a hundred of them need no more pictures each than one does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist, fmean, stdev, variance
from typing import Literal, Protocol

import torch
from torch import Tensor

from l2dm.errors import WrongShape

EXACT = 16  # pairs up to which all 2^n sign patterns are counted
FLIPS = 20_000  # sign patterns drawn beyond that
MOST = 1000  # pictures of one concept; a plan that needs more is none

Health = Literal["healthy", "regressed", "inconclusive"]


@dataclass(frozen=True)
class Bars:
    """What counts as forgotten. margin: a drop that matters, over 0; alpha, power in (0, 1)."""

    margin: float = 0.1
    alpha: float = 0.05
    power: float = 0.9


@dataclass(frozen=True)
class Comparison:
    """One concept: mean drop since release, its corrected p-value, and what follows.

    needed: pairs that would decide, where these do not and some number would; else 0.
    """

    concept: str
    health: Health
    drop: float
    p: float
    pairs: int
    needed: int = 0


def drop_p(differences: Sequence[float]) -> float:
    """Probability of so large a mean if nothing changed: one-sided sign-flip test.

    differences: before minus after of n pairs. Exact up to 16 pairs, else over 20,000 fixed random
    patterns (the observed one counted).
    """
    return family_p({"": differences})[""]


def family_p(differences: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The same for many concepts, corrected: at most alpha of families have a false one under it.

    The i-th differences of all concepts are of one seed and flip together, so whatever they share
    is kept. Step-down over the largest mean: Westfall and Young 1993, algorithm 4.1.
    """
    signs = _signs(max((len(found) for found in differences.values()), default=0))
    largest = torch.full((len(signs),), -torch.inf, dtype=torch.float64)
    p: dict[str, float] = {}
    for name in sorted(differences, key=lambda name: fmean(differences[name])):
        found = torch.tensor(differences[name], dtype=torch.float64)
        largest = torch.maximum(largest, signs[:, : len(found)] @ found / len(found))
        # a hair of tolerance, so that equal sums in another order of addition count as equal
        p[name] = float((largest >= found.mean() - 1e-12).double().mean())
    highest = 0.0
    for name in reversed(list(p)):
        p[name] = highest = max(highest, p[name])
    return {name: p[name] for name in differences}


def compare(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    bars: Bars,
    *,
    exact: bool = False,
) -> tuple[Comparison, ...]:
    """A comparison for every concept; before, after: its scores picture by picture.

    Regressed: a drop of at least the margin that chance does not explain. Healthy: a drop as large
    as the margin can be ruled out (each at alpha: all must pass, which needs no correction).
    exact: chance has no say between before and after, so p is 0. Raises WrongShape.
    """
    if set(before) != set(after):
        raise WrongShape(
            f"expected the same concepts before and after, found {sorted(before)} and "
            f"{sorted(after)}"
        )
    found = {name: _paired(before[name], after[name]) for name in before}
    p = dict.fromkeys(found, 0.0) if exact else family_p(found)
    findings = tuple(_finding(name, found[name], p[name], bars) for name in found)
    typical = _typical_spread(found, bars)
    return tuple(
        replace(one, needed=_more(one, found[one.concept], typical, bars, len(found)))
        if one.health == "inconclusive"
        else one
        for one in findings
    )


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


def pairs_needed(drop: float, spread: float, bars: Bars, concepts: int) -> int:
    """Pairs at which a drop like this one is decided with `power`; 0 where MOST would not do.

    A drop under the margin is decided by ruling the margin out; another one by its p of all
    `concepts` and by staying over the margin. spread: standard deviation of the differences.
    """
    z = NormalDist().inv_cdf
    gap = abs(drop - bars.margin)
    if drop < bars.margin:
        level = bars.alpha
        wanted = _sample_size(gap, spread, z(1 - level), z(bars.power))
    else:
        # Bonferroni over concepts: an upper bound of what the step-down asks for
        level = bars.alpha / concepts
        wanted = max(
            _sample_size(drop, spread, z(1 - level), z(bars.power)),
            _sample_size(gap, spread, 0.0, z(bars.power)),
        )
    found = max(wanted, math.log2(1 / bars.alpha))
    return math.ceil(found) if found <= MOST else 0


def _sample_size(effect: float, spread: float, *quantiles: float) -> float:
    """Pairs that show an effect, by the quantiles of alpha and power: Guenther 1981.

    Normal approximation, and half the square of alpha's quantile for an estimated spread.
    """
    if effect <= 0:
        return math.inf
    return (sum(quantiles) * spread / effect) ** 2 + quantiles[0] ** 2 / 2


def _typical_spread(differences: Mapping[str, Sequence[float]], bars: Bars) -> float:
    """Standard deviation of one difference about its concept's mean, over all concepts.

    Where every concept has one: about the mean of all. Where nothing tells it: the margin.
    """
    about = [variance(found) for found in differences.values() if len(found) > 1]
    if about:
        return math.sqrt(fmean(about))
    every = [one for found in differences.values() for one in found]
    return stdev(every) if len(every) > 1 else bars.margin


def _finding(name: str, differences: Sequence[float], p: float, bars: Bars) -> Comparison:
    drop, pairs = fmean(differences), len(differences)
    if p <= bars.alpha and drop >= bars.margin:
        return Comparison(name, "regressed", drop, p, pairs)
    # the mirrored test: how likely is so small a drop if the true one is the margin
    ruled_out = drop_p([bars.margin - one for one in differences]) <= bars.alpha
    return Comparison(name, "healthy" if ruled_out else "inconclusive", drop, p, pairs)


def _more(
    undecided: Comparison,
    differences: Sequence[float],
    typical: float,
    bars: Bars,
    concepts: int,
) -> int:
    """Pairs that would decide, more than there were; 0 where no number would."""
    own = stdev(differences) if len(differences) > 1 else typical
    spread = max(own, typical)  # few pictures may look more alike than they are
    wanted = pairs_needed(undecided.drop, spread, bars, concepts)
    return max(wanted, undecided.pairs + 1) if wanted else 0


@lru_cache(maxsize=2)
def _signs(pairs: int) -> Tensor:
    """Sign patterns, (m, pairs): all 2^pairs, or the observed one and FLIPS others."""
    if pairs <= EXACT:
        patterns = torch.arange(2**pairs)
        return (1 - 2 * ((patterns[:, None] >> torch.arange(pairs)) & 1)).double()
    generator = torch.Generator().manual_seed(0)
    flipped = torch.randint(0, 2, (FLIPS, pairs), generator=generator)
    return torch.cat([torch.ones(1, pairs), 1.0 - 2.0 * flipped]).double()


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
