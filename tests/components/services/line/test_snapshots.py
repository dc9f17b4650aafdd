"""The sum of a line's events: kept, written down, never trusted beyond the events themselves."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from components.services.line import snapshots
from components.services.line.ledger import ConceptState, Ledger, summed
from components.services.line.records import COMPACT, Records
from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects, Stored


class Counted(FolderObjects):
    """Counts the objects that are read, by their folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads = Counter[str]()

    def read(self, key: str) -> Stored:
        self.reads[key.partition("/")[0]] += 1
        return super().read(key)


def live(records: Records, uploads: int = 12) -> None:
    """Uploads that were promoted one after the other; one was retried, one refused."""
    for number in range(uploads):
        name, task = f"c{number}", f"t{number + 1:04d}"
        records.append("submitted", concept=name, class_noun="dog")
        run = {"concept": name, "upload": "u", "run": f"run-{number}", "attempt": 1, "fence": 1}
        records.append("started", **run)
        records.append(
            "begun", concept=name, class_noun="dog", task=task, parent_version=number, upload="u"
        )
        if number == 3:
            why = {"step": "train", "reasons": ["killed"], "anew": False, "pause": 30.0}
            records.append("retried", concept=name, run="run-3", **why)
            records.append("started", **{**run, "attempt": 2})
        records.append("promotion", task=task, source=number, target=number + 1)
        records.end(ConceptState(name, "dog", "promoted", number + 1, task=task, upload="u"))
    last = {"concept": "last", "upload": "v", "run": "run-last", "attempt": 1, "fence": 2}
    records.append("started", **last)


@pytest.fixture
def store(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def same(one: Ledger, other: Ledger) -> bool:
    """But for what the store adds to the events: marks and times."""

    def plain(ledger: Ledger) -> dict[str, object]:
        concepts = {name: asdict(of) | {"ended": 0} for name, of in ledger.concepts.items()}
        return {**asdict(ledger), "mark": "", "concepts": concepts}

    return plain(one) == plain(other)


def test_what_is_kept_over_looks_is_the_sum_of_all_events(store: Counted) -> None:
    records, watcher = Records(store, "pets"), Records(store, "pets")
    for uploads in (1, 3, 12):
        live(records, uploads)
        assert same(watcher.state(), summed(records.events()))


def test_a_look_at_an_idle_line_reads_nothing_again(store: Counted) -> None:
    live(records := Records(store, "pets"))
    records.state()
    store.reads.clear()
    assert records.state().standing.champion == 12
    assert store.reads == {}
    records.append("submitted", concept="new", class_noun="cat")
    store.reads.clear()
    records.state()
    assert store.reads == {"records": 1}


def test_a_new_process_goes_on_from_the_snapshot(objects: Objects) -> None:
    live(first := Records(objects, "pets"))
    first.state()
    first.compact()
    live(first, 2)
    second = Records(objects, "pets")
    assert same(second.state(), summed(first.events()))
    assert snapshots.read(objects, "pets").last >= COMPACT


def test_few_events_are_worth_no_snapshot(store: Counted) -> None:
    live(records := Records(store, "pets"), 2)
    records.state()
    records.compact()
    assert snapshots.read(store, "pets").last == 0


def test_a_new_process_reads_the_snapshot_and_the_events_after_it(store: Counted) -> None:
    live(records := Records(store, "pets"))
    records.state()
    records.compact()
    records.append("submitted", concept="new", class_noun="cat")
    store.reads.clear()
    assert Records(store, "pets").concept("new") is not None
    assert store.reads == {"snapshots": 1, "records": 1}


@pytest.mark.parametrize(
    "damage",
    [
        b"not JSON",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "code": "0.0.0", "ledger": {}}',
        json.dumps({"format": 0, "code": "x", "ledger": {}}).encode(),
    ],
)
def test_a_snapshot_that_is_none_costs_time_and_nothing_else(store: Counted, damage: bytes) -> None:
    live(records := Records(store, "pets"))
    store.write("snapshots/pets.json", damage)
    assert same(Records(store, "pets").state(), summed(records.events()))


def test_a_snapshot_of_events_that_are_gone_is_not_used(store: Counted) -> None:
    """The bucket came back from a backup that is older than the snapshot, or written anew."""
    live(records := Records(store, "pets"))
    records.state()
    records.compact()
    for number in range(40, records.state().last + 1):
        store.delete(f"records/pets/{number:06d}.json")
    fresh = Records(store, "pets")
    assert same(fresh.state(), summed(fresh.events()))
    assert fresh.state().last == 39
    live(fresh, 12)  # other events under the same numbers
    assert same(Records(store, "pets").state(), summed(fresh.events()))


def test_a_line_deleted_while_it_is_watched_is_a_new_one(store: Counted) -> None:
    live(records := Records(store, "pets"))
    assert records.state().last > 0
    for entry in tuple(store.list("records/pets/")):
        store.delete(entry.key)
    assert records.state().last == 0
    assert records.append("submitted", concept="rex", class_noun="dog").number == 1
    assert [state.name for state in records.concepts()] == ["rex"]
