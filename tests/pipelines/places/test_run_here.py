"""When a run is shared out, and what is told of one whose step wrote no error."""

from pathlib import Path

import pytest

from components.services.line.ledger import ConceptState, Ending
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.spec import Spec, override, to_json
from pipelines.places.run_here import (
    WHOLE,
    Breadth,
    Job,
    RunFailed,
    breadth_of,
    known_concepts,
)

LOG = """17:07:03.767 - INFO - Running pipeline: 'learn-concept'
--------------------------------------------------------------------------------
17:07:03.804 - INFO - Streamed logs:

l2dm|{"step": "train", "text": "begins", "done": 0, "total": 0}
python3: error while loading shared libraries: libpython3.11.so.1.0
l2dm|{"step": "train", "text": "loss", "done": 1, "total": 9}

17:07:06.506 - ERROR - Task 'train' finished with status FAILURE
--------------------------------------------------------------------------------
"""


def learn(records: Records, version: int, parent: int, state: Ending = "promoted") -> None:
    """One task of a line as the steps record it."""
    task, name = f"t{version:04d}", f"c{version}"
    facts = {"task": task, "parent_version": parent, "upload": "u"}
    records.append("begun", concept=name, class_noun="dog", **facts)
    if state == "promoted":
        records.append("promotion", line="pets", task=task, source=parent, target=version)
    records.end(ConceptState(name, "dog", state, version, task=task, upload="u"))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(Home.at(tmp_path).store, "pets")


def test_the_champions_descent_is_what_it_knows(records: Records) -> None:
    assert known_concepts(records.state()) == 0
    learn(records, 1, 0)
    learn(records, 2, 1)
    learn(records, 3, 2, "held")
    assert known_concepts(records.state()) == 2
    learn(records, 4, 2)
    assert known_concepts(records.state()) == 3
    records.append("rollback", line="pets", source=4, target=1)
    assert known_concepts(records.state()) == 1
    records.append(
        "begun", concept="x", class_noun="dog", task="t0005", parent_version=1, upload="u"
    )
    assert known_concepts(records.state()) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), Breadth()),
        (("memory.fan_out=3", "evaluate.fan_out=3"), Breadth()),  # two are known, with the new: 3
        (("memory.fan_out=2",), Breadth(("1/2", "2/2"), WHOLE)),
        (("evaluate.fan_out=1", "evaluate.shards=3"), Breadth(WHOLE, ("1/3", "2/3", "3/3"))),
        (("memory.shards=4",), Breadth()),
        (("memory.fan_out=2", "train.method=gated"), Breadth()),  # there is nothing to draw
    ],
)
def test_above_a_size_shards_draw(
    records: Records, settings: tuple[str, ...], expected: Breadth
) -> None:
    learn(records, 1, 0)
    learn(records, 2, 1)
    spec = override(Spec(), ["train.method=l2dm", *settings])
    assert breadth_of(spec, records.state()) == expected
    assert expected.wide == (expected != Breadth())


def test_a_job_takes_the_pipeline_of_its_line(records: Records, tmp_path: Path) -> None:
    def job(*settings: str) -> Job:
        spec = to_json(override(Spec(), settings))
        return Job("pets", "rex", "pocket", spec, Home.at(tmp_path), 1)

    learn(records, 1, 0)
    narrow, wide = job("evaluate.fan_out=2"), job("evaluate.fan_out=1")
    assert (narrow.pipeline, wide.pipeline) == ("learn_concept", "learn_concept_wide")
    assert set(wide.arguments) - set(narrow.arguments) == {"memory_shards", "evaluate_shards"}
    assert wide.arguments["evaluate_shards"] == ["1/2", "2/2"]
    assert wide.arguments["memory_shards"] == ["1/1"]


def test_without_fan_out_no_record_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Records) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Records, "state", refuse)
    job = Job("pets", "rex", "pocket", to_json(Spec()), Home.at(tmp_path), 1)
    assert job.pipeline == "learn_concept"
    assert "memory_shards" not in job.arguments


def test_a_step_that_said_nothing_at_all_is_told_without(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("17:07:06.506 - ERROR - Task 'train' finished with status FAILURE\n---\n")
    for where in (log, tmp_path / "none.txt"):
        assert "ended from outside (log:" in str(RunFailed(None, where))
