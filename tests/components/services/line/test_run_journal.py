"""What a step leaves behind for whoever started it."""

import os
from pathlib import Path

import pytest

from components.services.line import run_journal
from components.services.line.run_journal import Cost, Failure
from components.services.store.folder import FolderObjects

RUN = "runs/pets/rex/"


def aged(store: FolderObjects, name: str, seconds: float) -> None:
    path = store.folder / RUN / name
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_a_step_that_was_repeated_and_ended_well_is_not_why_the_run_failed(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    run_journal.write_failure(store, RUN, "train", RuntimeError("out of memory"))
    told = Failure("train", "RuntimeError", ("out of memory",))
    run_journal.write_cost(store, RUN, "intake", Cost(1.0, 1.0))
    assert run_journal.read_failure(store, RUN) == told
    aged(store, "error.json", 5)
    run_journal.write_cost(store, RUN, "train", Cost(1.0, 1.0))
    assert run_journal.read_failure(store, RUN) is None
    run_journal.write_failure(store, RUN, "evaluate", RuntimeError("no space"))
    assert run_journal.read_failure(store, RUN) == Failure(
        "evaluate", "RuntimeError", ("no space",)
    )


def test_an_error_after_the_cost_of_its_step_counts(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    run_journal.write_cost(store, RUN, "train", Cost(1.0, 1.0))
    aged(store, "cost-train.json", 5)
    run_journal.write_failure(store, RUN, "train", RuntimeError("out of memory"))
    assert run_journal.read_failure(store, RUN) is not None


def test_neither_error_json_nor_a_record_holds_a_secret(tmp_path: Path) -> None:
    """Records are never rewritten: what gets into one stays there for good."""
    from components.services.line.records import Records
    from l2dm.errors import TrackingFailed

    store, hush = FolderObjects(tmp_path), "http://me:hush@mlflow:5000 and ?token=hush"
    run_journal.write_failure(store, RUN, "train", TrackingFailed(hush))
    records = Records(store, "pets")
    records.append("cancelled", concept="rex", upload="sha", reason=hush, mark="hush of a mark")
    told = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(told) == 2 and not any("hush@" in text or "=hush" in text for text in told)
    assert records.events()[0].facts["mark"] == "hush of a mark", "only words are changed"


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_damaged_costs_and_errors_say_nothing_and_stop_nothing(
    tmp_path: Path, damage: bytes
) -> None:
    store = FolderObjects(tmp_path)
    run_journal.write_cost(store, RUN, "train", Cost(1.0, 2.0))
    for name in ("cost-intake.json", "error.json"):
        store.write(f"{RUN}{name}", damage)
    assert run_journal.read_costs(store, RUN) == {"train": Cost(1.0, 2.0)}
    assert run_journal.read_failure(store, RUN) is None
