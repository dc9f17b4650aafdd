import math
from dataclasses import replace

import pytest

from l2dm.doors import QUESTIONS, Concept, Drift, Measurement, Scores, closed_by, marked
from l2dm.metrics.gate import judge
from l2dm.spec import GateSpec

REX, MIA, KIT = Concept("rex", "dog"), Concept("mia", "cat"), Concept("kit", "car")
SPEC = GateSpec(min_identity=0.5, max_forgetting=0.2, max_drift=0.3, max_text_loss=0.3)

SIMILARITY = ((0.1, 0.2, 0.3), (0.6, None, None), (0.5, 0.8, None), (0.5, 0.75, 0.9))
ACCURACY = ((0.0, 0.0, 0.0), (1.0, None, None), (0.9, 1.0, None), (0.8, 1.0, 0.75))
TEXT = ((0.5, 0.6, 0.55), (0.5, None, None), (0.5, 0.6, None), (0.5, 0.6, 0.44))
GOOD = Scores(
    base="b",
    rows=("base", "t1", "t2", "t3"),
    concepts=(REX, MIA, KIT),
    matrices={
        "identity_similarity": SIMILARITY,
        "identity_accuracy": ACCURACY,
        "text_alignment": TEXT,
    },
    drift=(
        Drift("t2", "dog", 1.5, None),  # an earlier row does not count
        Drift("t3", "dog", 0.1, 2.0),
        Drift("t3", "cat", 0.4, None),
    ),
    ceilings={},
)


def _with(metric, row, column, value):
    matrix = [list(line) for line in GOOD.matrices[metric]]
    matrix[row][column] = value
    changed = {**GOOD.matrices, metric: tuple(tuple(line) for line in matrix)}
    return replace(GOOD, matrices=changed)


def test_an_open_gate_says_why_with_its_numbers():
    verdict = judge(GOOD, KIT, SPEC)
    assert verdict.open
    assert verdict.reasons == (
        "Identity accuracy of the new concept <kit> is 0.75, at least the required 0.50.",
        "Of the past concepts <rex> lost most: its identity similarity went from 0.600 after t1 "
        "to 0.500, a drop of 0.100, within the allowed 0.200.",
        "Class prompts moved by 0.250 from the base on average (cat: 0.400, the most of 2), "
        "within the allowed 0.300.",
        "Text alignment of the new concept <kit> is 0.44, that of the base on car 0.55: a loss of "
        "20%, within the allowed 30%.",
    )


@pytest.mark.parametrize(
    ("scores", "reason", "sentence"),
    [
        (
            _with("identity_accuracy", 3, 2, 0.25),
            0,
            "Identity accuracy of the new concept <kit> is 0.25, below the required 0.50.",
        ),
        (
            _with("identity_similarity", 3, 1, 0.5),
            1,
            "Of the past concepts <mia> lost most: its identity similarity went from 0.800 after "
            "t2 to 0.500, a drop of 0.300, more than the allowed 0.200.",
        ),
        (
            replace(GOOD, drift=(Drift("t3", "dog", 0.5, None),)),
            2,
            "Class prompts moved by 0.500 from the base on average (dog: 0.500, the most of 1), "
            "more than the allowed 0.300.",
        ),
        (  # noise in the right colours: photographs that a base of flat scenes was taught
            _with("text_alignment", 3, 2, 0.27),
            3,
            "Text alignment of the new concept <kit> is 0.27, that of the base on car 0.55: a loss "
            "of 51%, more than the allowed 30%.",
        ),
    ],
)
def test_each_reason_closes_the_gate_alone(scores, reason, sentence):
    verdict = judge(scores, KIT, SPEC)
    assert not verdict.open
    assert verdict.reasons[reason] == sentence
    assert [one.passed for one in verdict.findings] == [at != reason for at in range(4)]
    assert closed_by(verdict.findings) == (QUESTIONS[reason],)
    others = [index for index in range(4) if index != reason]
    open_reasons = judge(GOOD, KIT, SPEC).reasons
    assert [verdict.reasons[index] for index in others] == [open_reasons[i] for i in others]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (_with("identity_accuracy", 3, 2, None), "Identity accuracy of the new concept <kit>"),
        (_with("identity_accuracy", 3, 2, math.nan), "Identity accuracy of the new concept <kit>"),
        (_with("identity_similarity", 2, 1, None), "Identity similarity of the past concept <mia>"),
        (_with("identity_similarity", 3, 0, math.nan), "of the past concept <rex> is missing"),
        (replace(GOOD, drift=()), "Drift of the class prompts was not measured"),
        (replace(GOOD, drift=(Drift("t2", "dog", 0.1, None),)), "was not measured"),
        (replace(GOOD, drift=(Drift("t3", "dog", math.nan, None),)), "of dog was not measured"),
        (replace(GOOD, matrices={"identity_similarity": SIMILARITY}), "Identity accuracy of"),
        (replace(GOOD, matrices={"identity_accuracy": ACCURACY}), "<rex>, <mia> is missing"),
        (_with("text_alignment", 3, 2, None), "Text alignment of the new concept <kit>, or"),
        (_with("text_alignment", 0, 2, math.nan), "the base on its class noun, is missing"),
        (replace(GOOD, matrices={"identity_accuracy": ACCURACY}), "Text alignment of"),
    ],
)
def test_a_missing_number_closes_the_gate(scores, sentence):
    verdict = judge(scores, KIT, SPEC)
    assert not verdict.open
    assert any(sentence in reason for reason in verdict.reasons)


def test_the_first_task_has_nothing_to_forget():
    scores = Scores(
        base="b",
        rows=("base", "t1"),
        concepts=(REX,),
        matrices={
            "identity_similarity": ((0.1,), (0.6,)),
            "identity_accuracy": ((0.0,), (1.0,)),
            "text_alignment": ((0.5,), (0.6,)),
        },
        drift=(Drift("t1", "dog", 0.0, 0.0),),
        ceilings={},
    )
    verdict = judge(scores, REX, SPEC)
    assert verdict.open
    assert verdict.reasons[1] == "There is no past concept that could have been forgotten."


def test_thresholds_themselves_pass():
    exact = GateSpec(
        min_identity=0.75, max_forgetting=0.6 - 0.5, max_drift=0.25, max_text_loss=0.2 + 1e-9
    )
    assert judge(GOOD, KIT, exact).open


def test_with_measurements_a_drop_is_measured_over_the_pictures_of_both_rows():
    def value(row, seed, similarity):
        return Measurement(row, "p", seed, {"identity_similarity": similarity}, concept="rex")

    measured = [value("t1", 1, 0.6), value("t1", 2, 0.9), value("t2", 1, 0.5), value("t3", 1, 0.35)]
    verdict = judge(GOOD, KIT, SPEC, measured)
    assert (
        "<rex> lost most: its identity similarity went from 0.600 after t1 to 0.350"
        in (verdict.reasons[1])
    )
    assert not verdict.open


def test_what_the_base_hardly_draws_cannot_be_lost():
    """Near 0 a share says nothing; one whose cosines are all below 0 is read as any other."""
    for base, now, passes in ((0.01, 0.0, True), (0.01, -0.2, False), (-0.32, -0.33, True)):
        scores = _with("text_alignment", 0, 2, base)
        matrix = [list(line) for line in scores.matrices["text_alignment"]]
        matrix[3][2] = now
        changed = {**scores.matrices, "text_alignment": tuple(map(tuple, matrix))}
        assert judge(replace(scores, matrices=changed), KIT, SPEC).open is passes


def test_reasons_of_older_verdicts_are_not_marked():
    assert marked(("fine", "lost"), ()) == ((None, "fine"), (None, "lost"))
    verdict = judge(_with("text_alignment", 3, 2, 0.1), KIT, SPEC)
    assert [passed for passed, _ in marked(verdict.reasons, verdict.findings)] == [
        *(True, True, True),
        False,
    ]
