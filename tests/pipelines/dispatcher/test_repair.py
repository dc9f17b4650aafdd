"""What is set right before a line goes on: restores from backups, and half uploads."""

import os
import shutil
from pathlib import Path

import pytest

from components.services.line import status_cache
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from l2dm.errors import BadDoor, ClosedStore, L2dmError, TrackingFailed
from pipelines.dispatcher import repair
from tests.worlds.dispatch_world import World


def test_versions_that_an_older_database_lost_are_learned_again(world: World) -> None:
    for name in ("rex", "mimi", "sunny"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    for lost in ("2", "3"):
        shutil.rmtree(world.registry.folder / "pets" / lost)
    world.registry._write("pets", {"champion": 1})
    world.upload("pets", "bolt")
    for _ in range(3):
        assert world.dispatcher.look()["pets"] in ("started", "waits", "again")
        if not world.runs.running():
            world.dispatcher.look()
        world.finish()
    assert set(world.states().values()) == {"promoted"}
    assert world.kinds().count("restored") == 1
    parents = {v.number: v.facts.parent_version for v in world.registry.versions("pets")}
    assert parents == {1: 0, 2: 1, 3: 2, 4: 3}


def test_a_line_whose_registry_is_another_one_is_left_for_a_person_who_can_hold_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    world.finish()
    shutil.rmtree(world.registry.folder / "pets")
    world.upload("pets", "mimi")
    assert world.dispatcher.reconcile("pets") == "broken"
    assert "this may be another database" in caplog.text
    dropped = repair.repair_line(world.home, world.registry, "pets")
    assert dropped is not None and dropped.champion == 0
    assert world.dispatcher.reconcile("pets") == "started"


def test_a_restore_that_the_dispatcher_settled_is_seen_by_status_and_submit(world: World) -> None:
    for name in ("rex", "mimi"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    status_cache.refresh(world.home, world.registry, "pets")  # as promote leaves it
    world.dispatcher.look()
    shutil.rmtree(world.registry.folder / "pets" / "2")
    world.registry._write("pets", {"champion": 1})
    world.upload("pets", "bolt")
    for _ in range(3):
        world.dispatcher.look()
    assert "restored" in world.kinds()
    index = status_cache.read(world.home, "pets", lambda: world.registry)
    assert index.aliases["champion"] == 1


def half(world: World, name: str, age: float) -> Path:
    folder = world.home.upload("pets", name)
    folder.mkdir(parents=True)
    for number in range(3):
        path = folder / f"{number}.png"
        path.write_bytes(b"picture")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    return folder


def test_half_an_upload_is_swept_a_day_after_its_last_file(world: World) -> None:
    assert world.dispatcher.reconcile("pets") == "idle"
    old, slow = half(world, "old", 25 * 3600), half(world, "slow", 25 * 3600)
    (slow / "3.png").write_bytes(b"still coming")
    world.upload("pets", "rex")
    world.now += 601  # a whole listing is due
    moved = [world.dispatcher.reconcile("pets") for _ in range(2)]
    assert moved == ["again", "started"]
    assert not old.exists()
    assert len(list(slow.iterdir())) == 4
    swept = [e for e in Records(world.home.store, "pets").events() if e.kind == "swept"]
    assert [(event.facts["upload"], event.facts["files"]) for event in swept] == [("old", 3)]
    world.finish()
    assert world.states() == {"rex": "promoted"}


def test_an_uploader_that_commits_while_it_is_swept_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = half(world, "rex", 25 * 3600)
    halves = Uploads.halves

    def late(uploads: Uploads, older: float) -> dict[str, tuple[str, ...]]:
        found = halves(uploads, older)
        uploads._store.create("inbox/pets/rex/concept.json", b'{"now": "it comes"}')
        return found

    monkeypatch.setattr(Uploads, "halves", late)
    records = Records(world.home.store, "pets")
    assert repair.sweep_halves(world.home, records, "pets") == ()
    assert len(list(folder.iterdir())) == 4


def learned(world: World, *names: str) -> None:
    for name in names:
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
        world.dispatcher.reconcile("pets")


@pytest.mark.parametrize(
    "error",
    [
        TrackingFailed("MLflow does not answer"),
        TimeoutError(110, "Connection timed out"),
        PermissionError(13, "Permission denied"),
        OSError(116, "Stale file handle"),
        ClosedStore("expected s3://team to be open to us, found 403"),
    ],
)
def test_a_version_that_is_out_of_reach_is_never_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    learned(world, "rex", "mimi")
    before, aliases = world.kinds(), world.registry.aliases("pets")

    def fetch(*_: object) -> Path:
        raise error

    monkeypatch.setattr(world.registry, "fetch", fetch)
    with pytest.raises(type(error)):
        repair.repair_line(world.home, world.registry, "pets")
    assert (world.kinds(), world.registry.aliases("pets")) == (before, aliases)


def test_a_damaged_champion_is_not_called_lost(world: World) -> None:
    learned(world, "rex")
    (world.registry.folder / "pets" / "1" / "release" / "manifest.json").write_text("{}")
    assert repair.repair_line(world.home, world.registry, "pets") is None
    with pytest.raises(BadDoor, match="version 1 of line 'pets'"):
        repair.require_whole_champion(world.home, world.registry, "pets")


def test_what_is_gone_is_dropped_with_leave_and_taken_back_when_it_is_there_again(
    world: World, tmp_path: Path
) -> None:
    learned(world, "rex", "mimi")
    states, aliases = Records(world.home.store, "pets").concepts(), world.registry.aliases("pets")
    files = world.registry.folder / "pets" / "2" / "release"
    files.rename(tmp_path / "away")
    asked: list[str] = []

    def no(dropped: object) -> bool:
        asked.append(str(dropped))
        return False

    with pytest.raises(L2dmError, match=r"so nothing was: versions .*: \[2\]"):
        repair.repair_line(world.home, world.registry, "pets", agreed=no)
    assert len(asked) == 1 and "restored" not in world.kinds()
    assert world.registry.aliases("pets") == aliases
    dropped = repair.repair_line(world.home, world.registry, "pets", agreed=lambda lost: True)
    assert dropped is not None and dropped.champion == 1
    assert world.states() == {"rex": "promoted", "mimi": "waiting"}
    with pytest.raises(L2dmError, match=r"version 2 of line 'pets' and its files .* still missing"):
        repair.undo(world.home, world.registry, "pets")
    (tmp_path / "away").rename(files)
    assert repair.undo(world.home, world.registry, "pets") == (2,)
    assert world.registry.aliases("pets") == aliases
    assert Records(world.home.store, "pets").concepts() == states
    assert repair.repair_line(world.home, world.registry, "pets") is None
    (files).rename(tmp_path / "away")  # and again
    dropped = repair.repair_line(world.home, world.registry, "pets")
    assert dropped is not None and (list(dropped.lost), dropped.champion) == ([2], 1)


def test_a_line_that_has_gone_on_is_not_taken_back(world: World, tmp_path: Path) -> None:
    learned(world, "rex", "mimi")
    (world.registry.folder / "pets" / "2" / "release").rename(tmp_path / "away")
    repair.repair_line(world.home, world.registry, "pets")
    for _ in range(3):  # learned again
        world.dispatcher.look()
    world.finish()
    world.dispatcher.reconcile("pets")
    with pytest.raises(L2dmError, match="has gone on since"):
        repair.undo(world.home, world.registry, "pets")


def test_all_lines_are_not_repaired_against_a_registry_that_knows_none_of_them(
    world: World,
) -> None:
    learned(world, "rex")
    shutil.rmtree(world.registry.folder / "pets")
    with pytest.raises(L2dmError, match="this may be another database"):
        repair.repair_line(world.home, world.registry, "pets", named=False)
    assert world.states() == {"rex": "promoted"} and "restored" not in world.kinds()
