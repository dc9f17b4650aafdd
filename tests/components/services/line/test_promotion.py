"""Promotion under rivals, pauses and hands in the registry: the records decide, aliases follow."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.services.line.ledger import ConceptState, summed
from components.services.line.promotion import Repair, repair, settle
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.tracking.registry import Alias, FolderRegistry, VersionFacts
from l2dm.errors import LostLease, StaleParent


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "registry")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(FolderObjects(tmp_path), "pets")


def register(registry: FolderRegistry, release: Path, parents: list[int]) -> None:
    """Version k learned from parents[k - 1], every gate open."""
    for number, parent in enumerate(parents, start=1):
        task = f"t{number:04d}"
        facts = VersionFacts(task, f"c{number}", "dog", parent, f"digest-{number}", True)
        assert registry.register("pets", release, facts) == number


def first_version(registry: FolderRegistry, release: Path) -> int:
    register(registry, release, [0])
    return 1


def test_of_promoters_at_once_one_wins_and_the_others_are_stale(
    registry: FolderRegistry, release: Path, records: Records, tmp_path: Path
) -> None:
    register(registry, release, [0, 1, 1, 1, 1])
    settle(registry, records, "pets", 1)

    def promote(version: int) -> bool:
        # a process of its own sees the records through an instance of its own
        mine = Records(FolderObjects(tmp_path), "pets")
        try:
            return settle(registry, mine, "pets", version)
        except StaleParent:
            return False

    with ThreadPoolExecutor(4) as pool:
        won = dict(zip(range(2, 6), pool.map(promote, range(2, 6)), strict=True))
    assert sum(won.values()) == 1
    (champion,) = [version for version, is_champion in won.items() if is_champion]
    assert registry.aliases("pets") == {"champion": champion, "previous": 1}
    chain = [(e.facts["source"], e.facts["target"]) for e in records.events()]
    assert chain == [(0, 1), (1, champion)]


class Pausing(FolderRegistry):
    """Stops right before `champion` is set the first time, as a paused process does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.at_alias, self.go_on = threading.Event(), threading.Event()

    def set_alias(self, line: str, alias: Alias, version: int) -> None:
        if alias == "champion" and not self.at_alias.is_set():
            self.at_alias.set()
            assert self.go_on.wait(10)
        super().set_alias(line, alias, version)


def test_a_promoter_that_was_paused_leaves_the_later_champion_in_place(
    registry: FolderRegistry, release: Path, records: Records, tmp_path: Path
) -> None:
    register(registry, release, [0, 1, 2])
    settle(registry, records, "pets", 1)
    paused = Pausing(registry.folder)
    mine = Records(FolderObjects(tmp_path), "pets")
    sleeper = threading.Thread(target=settle, args=(paused, mine, "pets", 2))
    sleeper.start()
    assert paused.at_alias.wait(10)  # version 2 is recorded, its alias is not set yet
    assert settle(registry, records, "pets", 3)
    paused.go_on.set()
    sleeper.join(10)
    assert registry.aliases("pets") == {"champion": 3, "previous": 2}


def test_an_alias_moved_by_hand_is_told_and_set_back(
    registry: FolderRegistry, release: Path, records: Records
) -> None:
    register(registry, release, [0, 1])
    settle(registry, records, "pets", 1)
    settle(registry, records, "pets", 2)
    assert repair(registry, records, "pets") == ()
    registry.set_alias("pets", "champion", 1)
    registry.set_alias("pets", "challenger", 2)
    registry.drop_alias("pets", "previous")
    assert repair(registry, records, "pets") == (
        Repair("champion", 1, 2),
        Repair("challenger", 2, 0),
        Repair("previous", 0, 1),
    )
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}


def test_an_alias_moved_by_hand_promotes_nothing(
    registry: FolderRegistry, release: Path, records: Records
) -> None:
    """Version 3 was learned from 1; a hand that puts the alias back on 1 does not let it in."""
    register(registry, release, [0, 1, 1])
    settle(registry, records, "pets", 1)
    settle(registry, records, "pets", 2)
    registry.set_alias("pets", "champion", 1)
    with pytest.raises(StaleParent, match="found version 2"):
        settle(registry, records, "pets", 3)


def test_standing_follows_promotions_rollbacks_and_held_versions(records: Records) -> None:
    records.append("promotion", source=0, target=1)
    held = ConceptState("rex", "dog", "held", version=2, task="t0002", upload="u")
    records.append(
        "begun", concept="rex", class_noun="dog", task="t0002", parent_version=1, upload="u"
    )
    records.end(held)
    now = summed(records.events()).standing
    assert (now.champion, now.previous, now.challenger) == (1, 0, 2)
    records.append("rollback", source=1, target=2)
    now = summed(records.events()).standing
    assert (now.champion, now.previous, now.challenger) == (2, 1, 0)


def test_who_lost_the_line_between_reading_and_writing_promotes_nothing(
    registry: FolderRegistry, records: Records, release: Path
) -> None:
    """Its release is registered, then it sleeps through its lease; nobody promoted meanwhile."""
    version = first_version(registry, release)

    def asleep() -> None:
        raise LostLease("taken for dead")

    with pytest.raises(LostLease, match="taken for dead"):
        settle(registry, records, "pets", version, asleep)
    assert records.events() == ()
    assert registry.aliases("pets") == {}


def test_what_is_recorded_while_the_lease_is_checked_is_seen(
    registry: FolderRegistry, records: Records, release: Path
) -> None:
    """Whoever takes the line over at this moment records it, and the promotion comes second."""
    version = first_version(registry, release)
    asked: list[int] = []

    def allowed() -> None:
        asked.append(1)
        if len(asked) == 1:
            run = {"concept": "rex", "run": "r", "step": None, "reasons": [], "anew": False}
            records.append("retried", **run)
        else:
            raise LostLease("taken for dead")

    with pytest.raises(LostLease):
        settle(registry, records, "pets", version, allowed)
    assert [event.kind for event in records.events()] == ["retried"]


def test_a_task_that_was_cancelled_while_its_run_slept_promotes_nothing(
    registry: FolderRegistry, records: Records, release: Path
) -> None:
    version = first_version(registry, release)
    failed = ConceptState("c1", "dog", "failed", reasons=("cancelled by ana",), task="t0001")
    records.end(failed)
    with pytest.raises(LostLease, match=r"'c1' has ended as failed: cancelled by ana"):
        settle(registry, records, "pets", version)
    assert registry.aliases("pets") == {}
