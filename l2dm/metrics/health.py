"""Is a release still what it was, and if not, what moved: the model or the world around it?

Three drawings tell it. *Again*: the release's own prompts and seeds. *Control*: what the bare base
drew at the release, again; it moves only with libraries and hardware. *Fresh*: the same prompts on
other seeds.

In the same environment (control gives its scores again) the same weights give the same pictures, so
*again* is compared as it is: a drop on those pictures is a fact about the model, of however few
there are. In another environment chance may have moved every picture, so *again* is tested, picture
by picture. *Fresh* answers another question, in both: were the release's seeds lucky ones? It is no
judge of the model: every check would ask the same lucky release anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from l2dm.doors import ConceptHealth
from l2dm.errors import WrongShape
from l2dm.metrics.paired_test import Bars, Comparison, compare, overall

SAME = 1e-3  # of a cosine: what other thread counts and batch make-ups can explain


@dataclass(frozen=True)
class Evidence:
    """Scores of one concept, n pictures each: at release, the same seeds again, other seeds.

    The i-th pictures of all concepts share a seed, in each of the three.
    """

    released: Sequence[float]
    again: Sequence[float]
    fresh: Sequence[float]

    @property
    def moved(self) -> float:
        """Largest difference of one picture between release and now, same seed."""
        return largest(self.released, self.again)


@dataclass(frozen=True)
class Diagnosis:
    """What follows from the evidence; the words are those of `l2dm.doors.Check`."""

    health: str
    cause: str
    findings: tuple[ConceptHealth, ...]
    reasons: tuple[str, ...]


def diagnose(evidence: Mapping[str, Evidence], control: float, bars: Bars) -> Diagnosis:
    """Every concept's health and what explains it. control: `largest` of the bare base's pictures.

    A concept that gives its release's scores again has not changed, whatever fresh seeds say. One
    that does not has regressed if it lost the margin: in the same environment without a test; in
    another one by a test that cries wolf, over all concepts, with probability alpha at most.
    Raises WrongShape.
    """
    same = control <= SAME
    released = {name: one.released for name, one in evidence.items()}
    again = {name: one.again for name, one in evidence.items()}
    fresh = {name: one.fresh for name, one in evidence.items()}
    found = compare(released, again, bars, exact=same)
    luck = compare(again, fresh, bars)
    findings = tuple(
        _judge(evidence[one.concept], one, other) for one, other in zip(found, luck, strict=True)
    )
    health = overall(findings)
    cause = "" if health == "healthy" else "model" if same else "environment"
    reasons = [] if same else [_elsewhere(control)]
    reasons += _told(findings, same)
    if health == "inconclusive":
        reasons.append(_advice(len(findings)))
    return Diagnosis(health, cause, findings, tuple(reasons) or (_all_well(len(findings)),))


def largest(before: Sequence[float], after: Sequence[float]) -> float:
    """Largest difference between scores of the same pictures; 0 without any. Raises WrongShape."""
    if len(before) != len(after):
        raise WrongShape(f"expected pairs of scores, found {len(before)} and {len(after)}")
    return max((abs(old - new) for old, new in zip(before, after, strict=True)), default=0.0)


def _judge(evidence: Evidence, found: Comparison, luck: Comparison) -> ConceptHealth:
    """found: what the release's seeds say; luck: what fresh ones say of those."""
    if evidence.moved <= SAME:
        kept = replace(found, health="healthy", p=1.0, needed=0)
        told = f"{found.concept}: the release's seeds give its scores again "
        told += f"({fmean(evidence.again):.3f})"
        return _health(evidence, kept, told + _fresh(evidence, luck, "the release was lucky"))
    meaning = "lucky seeds at the release, or a loss that they do not show"
    return _health(evidence, found, _sentence(found) + _fresh(evidence, luck, meaning))


def _fresh(evidence: Evidence, luck: Comparison, meaning: str) -> str:
    told = f"; fresh seeds {fmean(evidence.fresh):.3f}"
    if luck.health == "regressed":
        told += f", {luck.drop:.3f} lower (p = {luck.p:.4f}): {meaning}"
    return told


def _health(evidence: Evidence, found: Comparison, sentence: str) -> ConceptHealth:
    return ConceptHealth(
        concept=found.concept,
        health=found.health,
        released=round(fmean(evidence.released), 6),
        again=round(fmean(evidence.again), 6),
        fresh=round(fmean(evidence.fresh), 6),
        moved=round(evidence.moved, 6),
        drop=round(found.drop, 6),
        p=round(found.p, 6),
        pairs=found.pairs,
        needed=found.needed,
        sentence=sentence,
    )


def _sentence(found: Comparison) -> str:
    """A concept that moved, with its numbers."""
    moved = f"{'lost' if found.drop >= 0 else 'gained'} {abs(found.drop):.3f}"
    pictures = "1 picture" if found.pairs == 1 else f"{found.pairs} pictures"
    chance = f"p = {found.p:.4f} of all concepts" if found.p else "the same environment"
    told = f"{found.concept}: {moved} over {pictures} of the release's seeds ({chance})"
    if found.health != "inconclusive":
        return f"{told}: {found.health}"
    if found.needed:
        return f"{told}; {found.needed} pictures would decide"
    return f"{told}; too near the margin for any number of pictures to decide"


def _told(findings: Sequence[ConceptHealth], same: bool) -> list[str]:
    """What is not healthy, worst first; then what moved although nothing around it did."""
    ranks = ("regressed", "inconclusive", "healthy")
    worst = sorted(findings, key=lambda one: (ranks.index(one.health), -one.drop))
    return [one.sentence for one in worst if one.health != "healthy" or (same and one.moved > SAME)]


def _elsewhere(control: float) -> str:
    return (
        f"The bare base draws other pictures than at the release (up to {control:.3f} apart on the "
        "same seeds): libraries, hardware or their settings differ, a rollback would not help."
    )


def _advice(concepts: int) -> str:
    return (
        "How many pictures there are is settled at a release: for N of each concept, learn the "
        f"next one with evaluate.pictures=N and evaluate.budget={concepts + 1}*N."
    )


def _all_well(concepts: int) -> str:
    who = "The concept scores" if concepts == 1 else f"All {concepts} concepts score"
    return f"{who} what the release scored."
