"""Is a release still what it was, and if not, what moved: the model or the world around it?

Three drawings tell it. *Again*: the release's own prompts and seeds; the same weights under the
same libraries give the same scores picture by picture, so here chance has no say. *Control*: what
the bare base drew at the release, again; it moves only with libraries and hardware. *Fresh*: the
same prompts on other seeds, so that nothing is called healthy on its old exam alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from l2dm.doors import ConceptHealth
from l2dm.errors import WrongShape
from l2dm.metrics.regression import Bars, Finding, examine, overall

SAME = 1e-3  # of a cosine: what other thread counts and batch make-ups can explain


@dataclass(frozen=True)
class Evidence:
    """Scores of one concept, n pictures each: at release, the same seeds again, other seeds."""

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
    that does not is tested over the pairs of both drawings, all such concepts corrected together.
    Raises WrongShape.
    """
    changed = {name: one for name, one in evidence.items() if one.moved > SAME}
    kept = {name: one for name, one in evidence.items() if name not in changed}
    tested = examine(
        {name: (*one.released, *one.released) for name, one in changed.items()},
        {name: (*one.again, *one.fresh) for name, one in changed.items()},
        bars,
    )
    luck = examine(
        {name: one.released for name, one in kept.items()},
        {name: one.fresh for name, one in kept.items()},
        bars,
    )
    found = {one.concept: _changed(evidence[one.concept], one) for one in tested}
    found |= {one.concept: _kept(evidence[one.concept], one) for one in luck}
    findings = tuple(found[name] for name in evidence)
    health = overall(findings)
    reasons = [one.sentence for one in findings if one.health != "healthy"]
    if control > SAME:
        reasons.insert(0, _elsewhere(control))
    cause = "" if health == "healthy" else "environment" if control > SAME else "model"
    return Diagnosis(health, cause, findings, tuple(reasons) or (_all_well(len(findings)),))


def largest(before: Sequence[float], after: Sequence[float]) -> float:
    """Largest difference between scores of the same pictures; 0 without any. Raises WrongShape."""
    if len(before) != len(after):
        raise WrongShape(f"expected pairs of scores, found {len(before)} and {len(after)}")
    return max((abs(old - new) for old, new in zip(before, after, strict=True)), default=0.0)


def _changed(evidence: Evidence, tested: Finding) -> ConceptHealth:
    return _health(evidence, tested, tested.health, tested.needed, tested.sentence)


def _kept(evidence: Evidence, luck: Finding) -> ConceptHealth:
    told = (
        f"{luck.concept}: the release's seeds give its scores again ({fmean(evidence.again):.3f}); "
        f"fresh seeds {fmean(evidence.fresh):.3f}"
    )
    if luck.health == "regressed":
        told += f", {luck.drop:.3f} lower (p = {luck.p:.4f}): the release was lucky in its seeds"
    return _health(evidence, luck, "healthy", 0, told)


def _health(
    evidence: Evidence, finding: Finding, health: str, needed: int, sentence: str
) -> ConceptHealth:
    return ConceptHealth(
        concept=finding.concept,
        health=health,
        released=round(fmean(evidence.released), 6),
        again=round(fmean(evidence.again), 6),
        fresh=round(fmean(evidence.fresh), 6),
        moved=round(evidence.moved, 6),
        drop=round(finding.drop, 6),
        p=round(finding.p, 6),
        pairs=finding.pairs,
        needed=needed,
        sentence=sentence,
    )


def _elsewhere(control: float) -> str:
    return (
        f"The bare base draws other pictures than at the release (up to {control:.3f} apart on the "
        "same seeds): libraries, hardware or their settings differ, a rollback would not help."
    )


def _all_well(concepts: int) -> str:
    who = "The concept scores" if concepts == 1 else f"All {concepts} concepts score"
    return f"{who} what the release scored."
