"""What is told of a task is what its gate judged."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.runtime.outcomes import new_row, record_scores
from l2dm import doors
from l2dm.files import door_files, manifest
from l2dm.metrics.gate import judge
from l2dm.spec import GateSpec

REX, MIMI = doors.Concept("rex", "dog"), doors.Concept("mimi", "cat")


class Told:
    """In a step's place: what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.points: dict[str, float] = {}
        self.tracking = self
        self.tell = self.told.update

    def measure(self, values: Mapping[str, float], at: int) -> None:
        self.points |= values

    def file(self, path: Path, under: str) -> None: ...


@pytest.fixture
def scores(tmp_path: Path) -> manifest.Door[doors.Scores]:
    """Two pictures of rex when it was learned; one, the better, when the budget had shrunk."""
    drawn = (
        *(("t0001", "rex", 0, 0.9), ("t0001", "rex", 1, 0.5)),
        *(("t0002", "rex", 0, 0.8), ("t0002", "mimi", 0, 0.7)),
    )
    measured = [
        doors.Measurement(row, "a photo", seed, {"identity_similarity": value}, concept)
        for row, concept, seed, value in drawn
    ]
    matrix = ((0.1, 0.1), (0.7, None), (0.8, 0.7))
    record = doors.Scores(
        base="b",
        rows=("base", "t0001", "t0002"),
        concepts=(REX, MIMI),
        matrices={"identity_similarity": matrix, "identity_accuracy": matrix},
        drift=(doors.Drift("t0002", "dog", 0.2, None),),
        ceilings={},
    )
    return manifest.write(
        tmp_path / "scores", record, lambda draft: door_files.write_measurements(draft, measured)
    )


def test_forgetting_is_one_number_for_the_gate_the_run_and_the_registry(
    scores: manifest.Door[doors.Scores], tmp_path: Path
) -> None:
    measured = door_files.read_measurements(scores)
    sentence = judge(scores.record, MIMI, GateSpec(), measured).reasons[1]
    (dropped,) = re.findall(r"a drop of (\d\.\d+)", sentence)
    assert dropped == "0.100"  # and not 0.7 - 0.8: the second picture was not drawn again
    step: Any = Told()
    record_scores(step, scores, str(tmp_path / "summary.md"))
    for value in (
        new_row(scores.record, measured)["forgetting"],
        step.told["forgetting"],
        step.points["eval/forgetting"],
        step.points["forget/rex/identity_similarity"],
    ):
        assert f"{value:.3f}" == dropped
    assert "forget/mimi/identity_similarity" not in step.points  # nothing was learned after it
