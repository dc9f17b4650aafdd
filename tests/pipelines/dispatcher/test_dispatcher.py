"""The dispatcher, one look at a time: what it does next follows from records, runs and leases."""

import errno
import os
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from components.services.line.leases import Leases
from components.services.line.promotion import roll_back
from components.services.line.recipe import Asked, Recipe
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.line.uploads import Uploads
from components.services.tracking.registry import VersionFacts
from l2dm.doors import Concept
from l2dm.errors import TrackingFailed
from l2dm.spec import IntakeSpec, Spec, from_json, override, to_json
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.dispatcher.dispatcher import REMIND, Dispatcher, DispatchPolicy, RunSettings
from pipelines.dispatcher.loop import follow
from tests.worlds.dispatch_world import Rings, World, expire
from tests.worlds.object_stores import Bucket


def test_uploads_of_a_line_are_learned_one_after_the_other_oldest_first(world: World) -> None:
    world.upload("pets", "mimi")
    world.upload("pets", "rex", age=60)
    look = world.dispatcher.reconcile
    assert [look("pets"), look("pets")] == ["started", "running"]
    assert "rex" in world.finish()
    assert [look("pets"), look("pets")] == ["started", "running"]
    assert "mimi" in world.finish()
    assert [look("pets"), look("pets")] == ["idle", "idle"]
    assert world.states() == {"rex": "promoted", "mimi": "promoted"}
    assert world.chain() == [(0, 1), (1, 2)]
    assert Leases(world.home.store).holder("pets") is None


def test_every_run_has_a_fencing_number_of_its_own(world: World) -> None:
    for name in ("mimi", "rex"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    world.dispatcher.reconcile("pets")
    assert [job.fence for job in world.runs.jobs.values()] == [1, 2]


def test_a_bad_upload_is_refused_at_once_and_the_next_is_learned(world: World) -> None:
    world.upload("pets", "blurred", age=60)
    world.upload("pets", "rex")
    look = world.dispatcher.reconcile
    look("pets")
    problems = ("00.png is too small", "only 2 pictures")
    world.runs.fail(world.runs.running()[0], Failure("intake", "BadUpload", problems))
    assert [look("pets"), look("pets")] == ["ended", "started"]
    world.finish()
    assert world.states() == {"blurred": "refused", "rex": "promoted"}


def test_a_killed_run_goes_on_with_its_task(world: World) -> None:
    """The second run finds task and parent of the first, so checkpoints and digests fit."""
    world.upload("pets", "rex")
    look = world.dispatcher.reconcile
    look("pets")
    records = Records(world.home.store, "pets")
    digest = records.events()[0].facts["upload"]
    begun = {"concept": "rex", "class_noun": "dog", "task": "t0001"}
    records.append("begun", **begun, parent_version=0, upload=digest)
    world.runs.fail(world.runs.running()[0], None)
    look("pets")
    world.now += 60
    look("pets")
    world.finish()
    assert world.kinds() == ["started", "begun", "retried", "started", "promotion", "ended"]
    assert world.registry.versions("pets")[0].facts.task == "t0001"


def test_a_stale_parent_begins_anew_from_the_champion_of_then(world: World, tmp_path: Path) -> None:
    for name in ("mimi", "rex"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    world.upload("pets", "sunny")
    look = world.dispatcher.reconcile
    look("pets")
    records = Records(world.home.store, "pets")
    (name,) = world.runs.running()
    digest = next(e.facts["upload"] for e in reversed(records.events()) if e.kind == "started")
    begun = {"concept": "sunny", "class_noun": "dog", "task": records.next_task()}
    records.append("begun", **begun, parent_version=2, upload=digest)
    roll_back(world.registry, records, "pets", 1, lambda v, folder: None, tmp_path / "scratch")
    world.runs.finish(name)
    assert look("pets") == "retried"
    world.now += 60
    look("pets")
    world.finish()
    assert world.states()["sunny"] == "promoted"
    assert world.registry.versions("pets")[-1].facts.parent_version == 1


def test_lines_share_the_places_fairly(tmp_path: Path) -> None:
    world = World(tmp_path, DispatchPolicy(parallel=2))
    for line in ("a", "b", "c"):
        for name in ("one", "two"):
            world.upload(line, name)
    order = []
    for _ in range(20):
        world.dispatcher.look()
        assert len(world.runs.running()) <= 2
        for name in world.runs.running():
            order.append(world.runs.jobs[name].line)
            world.runs.finish(name)
    assert sorted(order) == ["a", "a", "b", "b", "c", "c"]
    assert set(order[:3]) == {"a", "b", "c"}  # nobody's second before everybody's first


def test_a_second_dispatcher_leaves_a_supervised_line_alone(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    other = world.another()
    assert other.reconcile("pets") == "busy"
    world.finish()
    assert other.reconcile("pets") == "idle"
    assert world.chain() == [(0, 1)]


def test_a_dispatcher_that_died_is_replaced_and_its_run_cannot_promote(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    expire(world)
    other = world.another()
    assert other.reconcile("pets") == "retried"
    (old,) = world.runs.stopped
    world.runs.finish(old)  # it was paused, not dead: it wakes up and goes on to promote
    assert world.chain() == []
    world.now += 60
    assert other.reconcile("pets") == "started"
    world.finish()
    assert world.chain() == [(0, 1)]
    assert world.dispatcher.reconcile("pets") == "idle"


def test_a_run_that_was_written_down_and_never_started_is_started_again(world: World) -> None:
    world.upload("pets", "rex")
    start, world.runs.start = world.runs.start, lambda name, job: None  # type: ignore[method-assign]
    world.dispatcher.reconcile("pets")
    world.runs.start = start  # type: ignore[method-assign]
    assert world.dispatcher.reconcile("pets") == "retried"
    world.now += 60
    assert world.dispatcher.reconcile("pets") == "started"
    world.finish()
    assert world.states() == {"rex": "promoted"}


def test_a_line_in_a_bucket_is_dispatched_like_one_in_a_folder(
    moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    world = World(tmp_path, place=f"s3://{moto_bucket.name}/{moto_bucket.prefix}")
    for name in ("rex", "mimi"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        for number in range(3):
            noise = random.Random(f"{name} {number}").randbytes(64 * 64 * 3)
            Image.frombytes("RGB", (64, 64), noise).save(folder / f"{number}.png")
        concept = Concept(name, "dog")
        submit_pictures(world.home, folder, "pets", concept, IntakeSpec())
    for _ in range(2):
        assert world.dispatcher.look() == {"pets": "started"}
        world.finish()
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.chain() == [(0, 1), (1, 2)]
    assert world.states() == {"rex": "promoted", "mimi": "promoted"}
    assert not (tmp_path / "scratch" / "records").exists()  # nothing of the state is local


def test_a_line_that_cannot_be_read_is_told_and_leaves_the_others_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.upload("cars", "bolt")
    world.upload("pets", "rex")
    world.home.store.write("records/cars/000001.json", b"not JSON")
    world.home.store.write("records/pets/README", b"somebody's note")
    assert world.dispatcher.look() == {"cars": "broken", "pets": "started"}
    assert "'records/cars/000001.json', found something else" in caplog.text
    world.finish()
    assert world.states() == {"rex": "promoted"}
    moves = follow(world.dispatcher, Rings(), 0.0, once=True)
    assert sorted(moves) == [("cars", "broken"), ("pets", "idle")]


def test_a_lease_that_cannot_be_read_is_not_taken_over(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.upload("pets", "rex")
    world.home.store.write("leases/pets.json", b"{}")
    assert [world.dispatcher.look() for _ in range(3)] == [{"pets": "broken"}] * 3
    assert caplog.text.count("its number must not go back") == 1
    world.now += REMIND
    assert world.dispatcher.look() == {"pets": "broken"}
    assert caplog.text.count("its number must not go back") == 2
    assert world.home.store.read("leases/pets.json").data == b"{}"
    world.home.store.delete("leases/pets.json")
    assert world.dispatcher.look() == {"pets": "started"}
    world.home.store.write("leases/pets.json", b"{}")
    assert world.dispatcher.look() == {"pets": "broken"}
    assert caplog.text.count("its number must not go back") == 3  # it had gone on: it is news


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


def test_a_full_disk_is_told_and_nothing_is_half_written(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("pets", "rex")
    with monkeypatch.context() as full:

        def fsync(file: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("components.services.store.folder.os.fsync", fsync)
        assert world.dispatcher.look() == {"pets": "broken"}
    assert "No space left on device" in caplog.text
    assert world.kinds() == []
    assert list(world.home.folder.rglob("*.draft")) == []
    assert world.dispatcher.look() == {"pets": "started"}


def test_an_error_that_nobody_thought_of_leaves_the_other_lines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, DispatchPolicy(parallel=2))
    world.upload("cars", "bolt")
    world.upload("pets", "rex")
    digest = Uploads.commitment

    def odd(self: Uploads, name: str) -> object:
        if name == "rex":
            raise RecursionError("who thought of that")
        return digest(self, name)

    monkeypatch.setattr(Uploads, "commitment", odd)
    assert world.dispatcher.look() == {"cars": "started", "pets": "broken"}
    assert "Traceback" in caplog.text


def test_a_line_that_keeps_another_method_is_left_alone_and_the_others_learn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    asked = Asked("", ("train.method=gated", "train.steps=5"))
    spec = to_json(override(Spec(), asked.settings))
    settings = RunSettings("pocket", spec, asked)
    dispatcher = Dispatcher(world.home, world.runs, lambda: world.registry, settings)
    kept = Recipe({"train.method": "sequential", "train.rank": 8}, "pocket", "f")
    records = Records(world.home.store, "cars")
    world.registry.register(
        "cars", tmp_path / "release", VersionFacts("t0001", "bolt", "car", 0, "digest", True)
    )
    named = {"concept": "bolt", "class_noun": "car", "upload": "u", "parent_version": 0}
    records.append("begun", task="t0001", recipe=asdict(kept), **named)
    records.append("promotion", line="cars", task="t0001", source=0, target=1)
    world.registry.set_alias("cars", "champion", 1)
    for line in ("cars", "pets"):
        world.upload(line, "mimi")
    other = Dispatcher(world.home, world.runs, lambda: world.registry, settings)
    for one in (dispatcher, dispatcher, other):  # told and recorded once, however often it looks
        assert one.reconcile("cars") == "broken"
    told = [one for one in caplog.messages if "line cars is left as it is" in one]
    assert len(told) == 2 and "expected train.method" in told[0] and "--line OTHER" in told[0]
    assert world.kinds("cars").count("retried") == 1
    waits = records.concept("mimi")
    assert waits is not None and waits.state == "waiting" and "train.method" in waits.reasons[0]
    records.append("submitted", concept="mimi", class_noun="cat")  # other pictures, same settings
    assert dispatcher.reconcile("cars") == "broken"
    waits = records.concept("mimi")
    assert waits is not None and "train.method" in waits.reasons[0]
    assert dispatcher.reconcile("pets") == "started"
    (job,) = world.runs.jobs.values()
    assert (job.line, from_json(job.spec).train.steps) == ("pets", 5)
    assert Leases(world.home.store).holder("cars") is None
    world.finish()
    assert world.dispatcher.reconcile("cars") == "started"  # one that asks for nothing else
    learns = records.concept("mimi")
    assert learns is not None and (learns.state, learns.reasons) == ("learning", ())


def test_of_twenty_lines_one_of_each_trouble_stops_no_other(tmp_path: Path) -> None:
    """A name, a missing event, a damaged event, a damaged champion, a copy and a lease of noise."""
    world = World(tmp_path, DispatchPolicy(parallel=40))
    for number in range(20):
        world.upload(f"line-{number:02d}", "rex")
        world.dispatcher.reconcile(f"line-{number:02d}")
    for name in world.runs.running():
        world.runs.finish(name)
    assert set(world.dispatcher.look().values()) == {"idle"}
    records = world.home.folder / "records"
    world.upload("a'b", "rex")
    (records / "line-01/000002.json").unlink()
    (records / "line-02/000002.json").write_bytes(b"\xff{")
    world.home.store.write("snapshots/line-03.json", b"[" * 10_000)
    world.home.store.write("lines/line-04.json", b"noise")
    world.home.store.write("leases/line-05.json", b"noise")
    for number in range(20):
        world.upload(f"line-{number:02d}", "tom")
    moves = world.another().look()
    broken = {line for line, moved in moves.items() if moved != "started"}
    assert broken <= {"line-01", "line-02", "line-05"}
    damaged = [name for name in world.runs.running() if "line-06" in name]
    world.runs.fail(damaged[0], Failure("intake", "BadDoor", ("the champion is not as written",)))
    moves = world.another().look()
    assert {f"line-{number:02d}" for number in range(7, 20)} <= moves.keys()
    for name in world.runs.running():
        world.runs.finish(name)
    world.now += 3600
    world.another().look()
    learned = [f"line-{number:02d}" for number in (0, 3, 4, *range(7, 20))]
    assert all(world.states(line) == {"rex": "promoted", "tom": "promoted"} for line in learned)
    assert world.states("line-06")["tom"] in ("waiting", "learning")


def test_what_the_operating_system_refuses_is_told_in_words_with_the_path(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.upload("pets", "rex")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/records/pets")

    monkeypatch.setattr(Records, "append_next", refused)
    assert world.dispatcher.reconcile("pets") == "broken"
    assert "No space left on device at /state/records/pets: free some space" in caplog.text
    assert "[Errno" not in caplog.text
