"""What nobody asked for: cancelled, deleted, moved by hand, half uploaded, servers away."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.line.uploads import Uploads
from components.services.store.folder import FolderObjects
from l2dm.errors import BadStore, L2dmError, TrackingFailed, UnknownLine
from pipelines.dispatcher import end_upload, repair
from pipelines.dispatcher.dispatcher import DispatchPolicy
from pipelines.dispatcher.loop import follow
from tests.worlds.dispatch_world import World, expire


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def reasons(world: World, name: str) -> tuple[str, ...]:
    state = Records(world.home.store, "pets").concept(name)
    assert state is not None
    return state.reasons


def die_before_the_end(world: World, name: str) -> None:
    """The run has promoted its version; its end is not recorded."""
    actions = iter(range(100))

    def cut() -> None:
        if next(actions) == 5:
            raise KeyboardInterrupt

    world.runs.cut = cut
    with pytest.raises(KeyboardInterrupt):
        world.runs.finish(name)
    assert world.kinds()[-1] == "promotion"


def test_a_waiting_upload_that_is_cancelled_ends_at_once_and_can_be_opened_again(
    world: World,
) -> None:
    world.upload("pets", "rex")
    assert end_upload.cancel(world.home, "pets", "rex", "the wrong dog")
    assert world.dispatcher.reconcile("pets") == "idle"
    (why,) = reasons(world, "rex")
    assert why.startswith("cancelled by ") and why.endswith(": the wrong dog")
    assert world.states() == {"rex": "failed"}
    records = Records(world.home.store, "pets")
    records.append("submitted", concept="rex", class_noun="dog")  # what `l2dm submit` does
    assert world.dispatcher.reconcile("pets") == "started"
    world.finish()
    assert world.states() == {"rex": "promoted"}


def test_an_upload_that_is_learned_is_stopped_and_the_next_one_goes_on(world: World) -> None:
    world.upload("pets", "rex", age=60)
    world.upload("pets", "mimi")
    look = world.dispatcher.reconcile
    look("pets")
    (name,) = world.runs.running()
    assert not end_upload.cancel(world.home, "pets", "rex", "")
    assert look("pets") == "ended"
    assert world.runs.stopped == [name]
    assert world.states()["rex"] == "failed"
    world.runs.finish(name)  # it was far away, and goes on for a moment
    assert world.chain() == []
    assert look("pets") == "started"
    world.finish()
    assert (world.states()["mimi"], world.states()["rex"]) == ("promoted", "failed")


def test_a_cancelled_upload_ends_although_another_is_learned_elsewhere(tmp_path: Path) -> None:
    """No place is free, and its retry's time has not come: its end needs neither."""
    world = World(tmp_path, DispatchPolicy(parallel=1))
    world.upload("cars", "bolt")
    world.dispatcher.look()
    world.upload("pets", "rex")
    assert world.dispatcher.look()["pets"] == "waits"
    facts = {"upload": Uploads(world.home.store, "pets").digest("rex"), "reason": "late"}
    Records(world.home.store, "pets").append("cancelled", concept="rex", **facts)
    assert world.dispatcher.look()["pets"] == "ended"
    assert world.states() == {"rex": "failed"}


def test_other_pictures_under_a_cancelled_name_are_another_upload(world: World) -> None:
    world.upload("pets", "rex")
    digest = Uploads(world.home.store, "pets").digest("rex")
    records = Records(world.home.store, "pets")
    records.append("cancelled", concept="rex", upload=digest, reason="")
    (world.home.upload("pets", "rex") / "concept.json").write_text('{"other": "pictures"}')
    assert world.dispatcher.reconcile("pets") == "started"


def test_a_promotion_comes_before_a_cancel_that_meets_it(world: World) -> None:
    """The run died between its promotion and its end: the champion stands."""
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,) = world.runs.running()
    die_before_the_end(world, name)
    assert not end_upload.cancel(world.home, "pets", "rex", "")
    assert world.dispatcher.reconcile("pets") == "ended"
    assert world.states() == {"rex": "promoted"}
    assert world.chain() == [(0, 1)]


def test_what_has_ended_or_never_came_cannot_be_cancelled(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    world.finish()
    with pytest.raises(L2dmError, match="found that it was promoted"):
        end_upload.cancel(world.home, "pets", "rex", "")
    with pytest.raises(UnknownLine, match="'mimi' in line 'pets', found none"):
        end_upload.cancel(world.home, "pets", "mimi", "")


def test_a_run_that_died_for_the_last_time_after_its_promotion_is_promoted(tmp_path: Path) -> None:
    world = World(tmp_path, DispatchPolicy(attempts=1))
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,) = world.runs.running()
    die_before_the_end(world, name)
    world.runs.fail(name, None)
    world.registry._write("pets", {})  # it died before its aliases, too
    assert [world.dispatcher.reconcile("pets") for _ in range(2)] == ["again", "ended"]
    assert world.states() == {"rex": "promoted"}
    assert dict(world.registry.aliases("pets")) == {"champion": 1}


def test_a_run_whose_machine_makes_other_bytes_is_not_learned_twice(world: World) -> None:
    """It promoted, its dispatcher was taken for dead; the next run must not learn rex upon rex."""
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,) = world.runs.running()
    die_before_the_end(world, name)
    expire(world)
    assert world.another().reconcile("pets") == "ended"
    assert (world.chain(), world.states()) == ([(0, 1)], {"rex": "promoted"})


def test_a_server_that_is_away_uses_up_no_attempts(tmp_path: Path) -> None:
    world = World(tmp_path, DispatchPolicy(attempts=2, backoff=0.0))
    world.upload("pets", "rex")
    away = Failure("promote", "TrackingFailed", ("MLflow does not answer",))
    for _ in range(5):
        assert world.dispatcher.reconcile("pets") == "started"
        world.runs.fail(world.runs.running()[0], away)
        assert world.dispatcher.reconcile("pets") == "retried"
    world.dispatcher.reconcile("pets")
    world.finish()
    assert world.states() == {"rex": "promoted"}


def test_a_registry_that_is_away_is_told_and_asked_again_later(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    world.finish()
    world.upload("pets", "mimi")
    asked: list[int] = []

    def versions(line: str) -> tuple[()]:
        asked.append(1)
        raise TrackingFailed("MLflow does not answer")

    with monkeypatch.context() as away:
        away.setattr(world.registry, "versions", versions)
        assert world.dispatcher.reconcile("pets") == "broken"
        assert world.dispatcher.reconcile("pets") == "waits"  # and keeps nobody waiting
        assert len(asked) == 1
    assert "MLflow does not answer" in caplog.text
    monkeypatch.setattr("pipelines.dispatcher.dispatcher.DEAF", 0.0)
    world.dispatcher._deaf = 0.0
    assert world.dispatcher.reconcile("pets") == "started"


def test_a_store_that_is_away_ends_no_dispatcher(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("pets", "rex")
    folders, calls = world.home.store.folders, iter(range(100))  # type: ignore[attr-defined]

    def away(store: FolderObjects, prefix: str) -> tuple[str, ...]:
        if next(calls) < 3:
            raise BadStore("expected an answer from the store, found none")
        return folders(prefix)

    monkeypatch.setattr(FolderObjects, "folders", away)
    moves = follow(world.dispatcher, Silence(), 0.0, once=False)
    assert next(moves) == ("pets", "started")
    assert "the lines cannot be listed: expected an answer" in caplog.text


class Silence:
    """No wake-ups."""

    def wait(self, seconds: float) -> frozenset[str]:
        return frozenset()

    def close(self) -> None:
        pass


def test_dispatchers_with_clocks_apart_agree_when_a_retry_is_due(world: World) -> None:
    """One whose clock is an hour ahead gave the upload back."""
    world.upload("pets", "rex")
    ahead = world.another(skew=3600.0)
    assert ahead.reconcile("pets") == "started"
    world.runs.fail(world.runs.running()[0], None)
    assert ahead.reconcile("pets") == "retried"
    ahead._keeper.free("pets")
    assert world.dispatcher.reconcile("pets") == "waits"
    world.now += 31
    assert world.dispatcher.reconcile("pets") == "started"


def test_a_run_that_another_dispatcher_replaced_is_stopped_by_its_own(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (old,) = world.runs.running()
    world.runs.stop = lambda name: None  # type: ignore[method-assign] # of another machine
    expire(world)
    other = world.another()
    assert other.reconcile("pets") == "retried"
    world.now += 31
    assert other.reconcile("pets") == "started"
    stopped: list[str] = []
    world.runs.stop = stopped.append  # type: ignore[method-assign]
    assert [world.dispatcher.reconcile("pets") for _ in range(2)] == ["again", "busy"]
    assert stopped == [old]


def test_a_line_deleted_while_it_learns_begins_anew(world: World) -> None:
    """Somebody removed records and inbox: the run is nobody's, the dispatcher goes on."""
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,) = world.runs.running()
    shutil.rmtree(world.home.folder / "records" / "pets")
    shutil.rmtree(world.home.folder / "inbox" / "pets")
    world.runs.finish(name)  # it wakes up in a world without its line
    assert world.dispatcher.look() in ({}, {"pets": "idle"})
    world.upload("pets", "mimi")
    world.now += 61
    moved = [world.dispatcher.look().get("pets") for _ in range(3)]
    assert "broken" not in moved
    while world.runs.running():
        world.finish()
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.states()["mimi"] == "promoted"


def test_an_alias_moved_by_hand_is_noticed_on_an_idle_line_recorded_and_set_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, DispatchPolicy(aliases=0.0))
    for name in ("rex", "mimi"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    world.registry.set_alias("pets", "champion", 1)
    world.dispatcher.look()
    assert world.kinds()[-1] == "ended"  # once may be a promoter between record and alias
    world.dispatcher.look()
    assert dict(world.registry.aliases("pets")) == {"champion": 2, "previous": 1}
    event = Records(world.home.store, "pets").events()[-1]
    assert event.kind == "mended"
    assert event.facts["aliases"] == [{"alias": "champion", "found": 1, "expected": 2}]
    assert "alias champion named version 1, the records say 2" in caplog.text
    assert Leases(world.home.store).holder("pets") is None


def test_an_alias_moved_by_hand_while_the_line_learns_does_not_stop_the_run(tmp_path: Path) -> None:
    world = World(tmp_path, DispatchPolicy(aliases=0.0))
    for name in ("rex", "mimi"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    world.upload("pets", "sunny")
    world.dispatcher.reconcile("pets")
    world.registry.set_alias("pets", "champion", 1)
    for _ in range(4):
        assert world.dispatcher.look() == {"pets": "running"}
    assert world.runs.stopped == []
    world.finish()
    world.dispatcher.look()
    assert dict(world.registry.aliases("pets")) == {"champion": 3, "previous": 2}


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


def test_a_full_disk_is_told_and_nothing_is_half_written(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("pets", "rex")
    with monkeypatch.context() as full:

        def fsync(file: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("components.services.store.objects.os.fsync", fsync)
        assert world.dispatcher.look() == {"pets": "broken"}
    assert "No space left on device" in caplog.text
    assert world.kinds() == []
    assert list(world.home.folder.rglob("*.draft")) == []
    assert world.dispatcher.look() == {"pets": "started"}


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
