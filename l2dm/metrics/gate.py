"""The gate: may this challenger become the champion? A pure function of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from l2dm.doors import Concept, Finding, Measurement, Scores, Verdict
from l2dm.metrics.forgetting import Drop, by_cell, drops, number
from l2dm.spec import GateSpec

LEAST_TEXT = 0.1  # a cosine: below it the base itself hardly draws what the words say


@dataclass(frozen=True)
class Condition:
    """One question: did it pass, and the sentence that says why."""

    passed: bool
    sentence: str


def judge(
    scores: Scores,
    concept: Concept,
    spec: GateSpec,
    measurements: Sequence[Measurement] = (),
) -> Verdict:
    """Open when the new concept was learned, is what its prompt says, and nothing else was lost.

    concept: the task's new one. measurements: the door's; with them a drop is one of the pictures
    that both rows drew, without them one of the matrix's means.
    Every question gives a sentence with its numbers, passed or not; a missing number closes.
    """
    found = {
        "identity": _learned(scores, concept, spec),
        "forgetting": _kept(scores, concept, spec, measurements),
        "drift": _stayed(scores, spec),
        "text": _drawn(scores, concept, spec),
    }
    return Verdict(
        open=all(one.passed for one in found.values()),
        reasons=tuple(one.sentence for one in found.values()),
        findings=tuple(Finding(question, one.passed) for question, one in found.items()),
    )


def _learned(scores: Scores, concept: Concept, spec: GateSpec) -> Condition:
    column = _column(scores, concept)
    matrix = scores.matrices.get("identity_accuracy", ())
    found = None if column is None or not matrix else number(matrix[-1][column])
    name = concept.placeholder
    if found is None:
        return Condition(
            False,
            f"Identity accuracy of the new concept {name} is missing; at least "
            f"{spec.min_identity:.2f} is required.",
        )
    passed = found >= spec.min_identity
    return Condition(
        passed,
        f"Identity accuracy of the new concept {name} is {found:.2f}, "
        f"{'at least' if passed else 'below'} the required {spec.min_identity:.2f}.",
    )


def _kept(
    scores: Scores, concept: Concept, spec: GateSpec, measurements: Sequence[Measurement]
) -> Condition:
    past = [known.name for known in scores.concepts if known.name != concept.name]
    if not past:
        return Condition(True, "There is no past concept that could have been forgotten.")
    matrix = scores.matrices.get("identity_similarity", ())
    names = [known.name for known in scores.concepts]
    cells = by_cell(measurements, "identity_similarity")
    found = drops(matrix, scores.rows, names, cells) if matrix else (None,) * len(names)
    known = {name: one for name, one in zip(names, found, strict=True) if name in past}
    missing = [f"<{name}>" for name, one in known.items() if one is None]
    if missing:
        return Condition(
            False,
            f"Identity similarity of the past concept {', '.join(missing)} is missing, so "
            "forgetting cannot be ruled out.",
        )
    measured = {name: one for name, one in known.items() if one is not None}
    worst = max(measured, key=lambda name: measured[name].amount)
    return _worst(worst, measured[worst], scores.rows, spec)


def _worst(name: str, found: Drop, rows: Sequence[str], spec: GateSpec) -> Condition:
    passed = found.amount <= spec.max_forgetting
    return Condition(
        passed,
        f"Of the past concepts <{name}> lost most: its identity similarity went from "
        f"{found.peak:.3f} after {rows[found.row]} to {found.now:.3f}, a drop of "
        f"{found.amount:.3f}, {'within' if passed else 'more than'} the allowed "
        f"{spec.max_forgetting:.3f}.",
    )


def _stayed(scores: Scores, spec: GateSpec) -> Condition:
    last = [drift for drift in scores.drift if drift.row == scores.rows[-1]]
    missing = [drift.noun for drift in last if number(drift.distance) is None]
    if not last or missing:
        named = f" of {', '.join(missing)}" if missing else ""
        return Condition(
            False,
            f"Drift of the class prompts{named} was not measured; at most "
            f"{spec.max_drift:.3f} is allowed.",
        )
    mean = fmean(drift.distance for drift in last)
    most = max(last, key=lambda drift: drift.distance)
    passed = mean <= spec.max_drift
    return Condition(
        passed,
        f"Class prompts moved by {mean:.3f} from the base on average ({most.noun}: "
        f"{most.distance:.3f}, the most of {len(last)}), {'within' if passed else 'more than'} "
        f"the allowed {spec.max_drift:.3f}.",
    )


def _drawn(scores: Scores, concept: Concept, spec: GateSpec) -> Condition:
    """Whether the pictures of the new concept still are what their prompts say.

    An identity can be met by noise of the right colours. The base draws the class noun for the same
    prompts and seeds, so its row says what can be asked. A share, because the cosines of one
    encoder lie elsewhere than another's.
    """
    column = _column(scores, concept)
    matrix = scores.matrices.get("text_alignment", ())
    base = now = None
    if matrix and column is not None:
        base, now = number(matrix[0][column]), number(matrix[-1][column])
    name = concept.placeholder
    if base is None or now is None:
        return Condition(
            False,
            f"Text alignment of the new concept {name}, or of the base on its class noun, is "
            "missing, so it cannot be said that the pictures show what the prompt says.",
        )
    lost = (base - now) / max(abs(base), LEAST_TEXT)
    passed = lost <= spec.max_text_loss
    moved = f"a loss of {lost:.0%}" if lost > 0 else "no loss"
    return Condition(
        passed,
        f"Text alignment of the new concept {name} is {now:.2f}, that of the base on "
        f"{concept.class_noun} {base:.2f}: {moved}, {'within' if passed else 'more than'} the "
        f"allowed {spec.max_text_loss:.0%}.",
    )


def _column(scores: Scores, concept: Concept) -> int | None:
    names = [known.name for known in scores.concepts]
    return names.index(concept.name) if concept.name in names else None
