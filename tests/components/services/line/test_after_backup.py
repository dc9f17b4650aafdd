"""Database and bucket from backups of different minutes: what is dropped, and who is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from components.services.line.after_backup import restore
from components.services.line.ledger import ConceptState
from components.services.line.promotion import repair, settle
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.tracking.registry import FolderRegistry, VersionFacts
from l2dm.errors import L2dmError


class Line:
    """A line with its registry; versions are taken from it as an older database does."""

    def __init__(self, folder: Path) -> None:
        self.registry = FolderRegistry(folder / "registry")
        self.store = FolderObjects(folder / "home")
        self.records = Records(self.store, "pets")
        self.folder = folder
        (folder / "release").mkdir()

    def learn(self, name: str, *, is_open: bool = True) -> int:
        ledger = self.records.state()
        parent, task = ledger.standing.champion, self.records.next_task()
        begun = {"task": task, "parent_version": parent, "upload": f"sha of {name}"}
        self.records.append("begun", concept=name, class_noun="dog", **begun)
        facts = VersionFacts(task, name, "dog", parent, f"digest-{task}-{name}", is_open)
        version = self.registry.register("pets", self.folder / "release", facts)
        crowned = settle(self.registry, self.records, "pets", version)
        state = ConceptState(name, "dog", "promoted" if crowned else "held", version)
        self.records.end(ConceptState(**{**vars(state), "task": task, "upload": begun["upload"]}))
        return version

    def lose_versions(self, after: int) -> None:
        """The database is older."""
        import shutil

        for version in self.registry.versions("pets"):
            if version.number > after:
                shutil.rmtree(self.registry.folder / "pets" / str(version.number))
        aliases = {k: min(v, after) for k, v in self.registry.aliases("pets").items()}
        self.registry._write("pets", aliases)

    def lose_records(self, after: int) -> None:
        """The bucket is older."""
        for number in range(after + 1, self.records.state().last + 1):
            self.store.delete(f"records/pets/{number:06d}.json")

    def states(self) -> dict[str, str]:
        return {state.name: state.state for state in self.records.concepts()}

    def aliases(self) -> Mapping[str, int]:
        return dict(self.registry.aliases("pets"))


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_records_and_registry_that_agree_are_left_alone(line: Line) -> None:
    for name in ("rex", "mimi"):
        line.learn(name)
    last = line.records.state().last
    assert restore(line.registry, line.records, "pets", unasked=True) is None
    assert line.records.state().last == last


def test_an_older_database_loses_versions_and_their_uploads_wait_again(line: Line) -> None:
    for name in ("rex", "mimi", "sunny", "bolt"):
        line.learn(name)
    line.lose_versions(after=2)
    dropped = restore(line.registry, line.records, "pets", unasked=True)
    assert dropped is not None
    assert (dict(dropped.lost), dropped.champion) == ({3: "t0003", 4: "t0004"}, 2)
    repair(line.registry, line.records, "pets")
    assert line.aliases() == {"champion": 2, "previous": 1}
    assert line.states() == {
        "rex": "promoted", "mimi": "promoted", "sunny": "waiting", "bolt": "waiting"
    }  # fmt: skip
    event = line.records.events()[-1]
    assert (event.kind, event.facts["champion"]) == ("restored", 2)
    assert event.facts["lost"] == [
        {"version": 3, "task": "t0003"}, {"version": 4, "task": "t0004"}
    ]  # fmt: skip
    assert line.learn("sunny") == 3  # the number is given again, to another version
    assert restore(line.registry, line.records, "pets", unasked=True) is None
    assert line.registry.versions("pets")[-1].facts.task == "t0005"


def test_a_lost_number_that_was_given_again_is_not_taken_for_the_old_version(line: Line) -> None:
    for name in ("rex", "mimi"):
        line.learn(name)
    line.lose_versions(after=1)
    facts = VersionFacts("t0007", "stranger", "dog", 1, "digest", True)
    assert line.registry.register("pets", line.folder / "release", facts) == 2
    dropped = restore(line.registry, line.records, "pets", unasked=True)
    assert dropped is not None
    assert (dict(dropped.lost), dropped.unknown, dropped.champion) == ({2: "t0002"}, (2,), 1)


def test_an_older_bucket_leaves_versions_without_alias_and_reuses_no_task(line: Line) -> None:
    line.learn("rex")
    before = line.records.state().last
    for name in ("mimi", "sunny"):
        line.learn(name)
    line.lose_records(after=before)
    dropped = restore(line.registry, line.records, "pets", unasked=True)
    assert dropped is not None
    assert (dict(dropped.lost), dropped.unknown, dropped.champion) == ({}, (2, 3), 1)
    repair(line.registry, line.records, "pets")
    assert line.aliases() == {"champion": 1}
    assert line.learn("mimi") == 4
    assert line.registry.versions("pets")[-1].facts.task == "t0004"
    assert line.registry.versions("pets")[-1].facts.parent_version == 1
    assert restore(line.registry, line.records, "pets", unasked=True) is None


def test_a_bucket_from_before_the_first_task_gives_no_task_number_twice(line: Line) -> None:
    """Or the version of the lost task would be taken for the next upload's."""
    for name in ("rex", "mimi"):
        line.learn(name)
    line.lose_records(after=0)
    dropped = restore(line.registry, line.records, "pets", unasked=True)
    assert dropped is not None and dropped.unknown == (1, 2)
    assert line.learn("sunny") == 3
    assert line.registry.versions("pets")[-1].facts.parent_version == 0


def test_a_registry_that_knows_nothing_of_the_line_is_for_a_person_to_judge(line: Line) -> None:
    for name in ("rex", "mimi"):
        line.learn(name)
    line.lose_versions(after=0)
    last = line.records.state().last
    with pytest.raises(L2dmError, match=r"another database.*run `l2dm repair --line pets`"):
        restore(line.registry, line.records, "pets", unasked=True)
    assert line.records.state().last == last
    dropped = restore(line.registry, line.records, "pets")
    assert dropped is not None and dropped.champion == 0
    assert set(line.states().values()) == {"waiting"}


def test_champions_whose_files_are_gone_are_dropped_back_to_one_that_is_whole(line: Line) -> None:
    """The bucket of the artifacts is older than the database."""
    for name in ("rex", "mimi", "sunny"):
        line.learn(name)
    dropped = restore(line.registry, line.records, "pets", loads=lambda version: version == 1)
    assert dropped is not None
    assert (dict(dropped.lost), dropped.champion) == ({2: "t0002", 3: "t0003"}, 1)


def test_a_held_version_that_is_lost_is_no_challenger_any_more(line: Line) -> None:
    line.learn("rex")
    line.learn("mimi", is_open=False)
    line.lose_versions(after=1)
    restore(line.registry, line.records, "pets", unasked=True)
    assert line.records.state().standing.challenger == 0
    assert line.states() == {"rex": "promoted", "mimi": "waiting"}


def test_a_task_whose_parent_is_lost_begins_anew(line: Line) -> None:
    for name in ("rex", "mimi"):
        line.learn(name)
    begun = {"task": "t0003", "parent_version": 2, "upload": "u"}
    line.records.append("begun", concept="sunny", class_noun="dog", **begun)
    line.lose_versions(after=1)
    restore(line.registry, line.records, "pets", unasked=True)
    sunny = line.records.concept("sunny")
    assert sunny is not None and (sunny.task, sunny.parent_version) == ("", 0)
