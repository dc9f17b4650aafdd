"""What is set right before a line goes on: restores from backups, and half uploads."""

import os
import shutil
from pathlib import Path

import pytest

from components.services.line import status_cache
from components.services.line.records import Records
from components.services.line.uploads import Uploads
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
