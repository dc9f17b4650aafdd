"""Uploads end exactly once: cancelled, promoted after a death, or never to be learned."""

from pathlib import Path

import pytest

from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.tracking import runs
from components.services.tracking.untold import untold
from l2dm.errors import L2dmError, TrackingFailed, UnknownLine
from pipelines.dispatcher import end_upload
from pipelines.dispatcher.dispatcher import DispatchPolicy
from tests.worlds.cluster_world import ClusterWorld
from tests.worlds.dispatch_world import World, expire
from tests.worlds.fake_kfp import FakeKfp


def reasons(world: World, name: str) -> tuple[str, ...]:
    state = Records(world.home.store, "pets").concept(name)
    assert state is not None
    return state.reasons


def test_a_waiting_upload_that_is_cancelled_ends_at_once_and_can_be_opened_again(
    world: World,
) -> None:
    world.upload("pets", "rex")
    assert end_upload.cancel(world.home, "pets", "rex", "the wrong dog")
    assert world.dispatcher.reconcile("pets") == "idle"
    (why,) = reasons(world, "rex")
    assert why.startswith("cancelled by ") and why.endswith(": the wrong dog")
    assert world.states() == {"rex": "cancelled"}
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
    assert world.states()["rex"] == "cancelled"
    world.runs.finish(name)  # it was far away, and goes on for a moment
    assert world.chain() == []
    assert look("pets") == "started"
    world.finish()
    assert (world.states()["mimi"], world.states()["rex"]) == ("promoted", "cancelled")


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
    assert world.states() == {"rex": "cancelled"}


def test_other_pictures_under_a_cancelled_name_are_another_upload(world: World) -> None:
    world.upload("pets", "rex")
    digest = Uploads(world.home.store, "pets").digest("rex")
    records = Records(world.home.store, "pets")
    records.append("cancelled", concept="rex", upload=digest, reason="")
    (world.home.upload("pets", "rex") / "concept.json").write_text('{"other": "pictures"}')
    assert world.dispatcher.reconcile("pets") == "started"


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


def test_a_cancel_ends_what_was_cancelled_and_not_what_came_after_it(world: World) -> None:
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    end_upload.cancel(world.home, "pets", "rex", "the wrong dog")
    world.put_others()
    assert world.dispatcher.reconcile("pets") == "ended"
    assert world.dispatcher.reconcile("pets", whole=True) == "started"


def test_cancelling_another_upload_leaves_a_cluster_training_alone(
    tmp_path: Path, kfp: FakeKfp, nobody: None
) -> None:
    """Its dispatcher is away for longer than a lease."""
    cluster = ClusterWorld(tmp_path, kfp)
    cluster.world.upload("pets", "rex", 60.0)
    cluster.dispatcher.reconcile("pets")
    cluster.world.upload("pets", "mimi")
    expire(cluster.world)
    assert not end_upload.cancel(cluster.world.home, "pets", "mimi", "no")
    assert cluster.another().reconcile("pets") == "running"
    assert kfp.runs[0]["state"] == "PENDING"


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


def test_a_cancel_of_before_it_was_a_state_is_read_as_one(world: World) -> None:
    """It was recorded as a failure whose only reason is the wish."""
    records = Records(world.home.store, "pets")
    records.append("cancelled", concept="rex", upload="u", reason="no", by="ana")
    facts = {"class_noun": "dog", "task": "", "version": None, "upload": "u"}
    records.append(
        "ended", concept="rex", state="failed", reasons=["cancelled by ana: no"], **facts
    )
    records.append("ended", concept="mimi", state="failed", reasons=["step train: x"], **facts)
    assert world.states() == {"rex": "cancelled", "mimi": "failed"}


def test_the_run_of_a_task_that_ends_badly_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when the upload has ended: a run that is tried again is none that failed."""
    closed = list[tuple[str, ...]]()
    monkeypatch.setattr(runs, "close", lambda home, *given: closed.append(given))
    records = Records(world.home.store, "pets")
    begun = {"class_noun": "dog", "parent_version": 0, "upload": "u"}
    for task, name in (("t0001", "rex"), ("t0002", "mimi")):
        records.append("begun", concept=name, task=task, **begun)
    end_upload.end_badly(world.home, "pets", "rex", None, "it died")
    last = records.state().last
    end_upload.end_as_cancelled(world.home, "pets", "mimi", "cancelled by ana", after=last)
    assert closed == [("pets", "t0001", "FAILED"), ("pets", "t0002", "KILLED")]
    end_upload.close_run(world.home, "pets", "", "FAILED")  # no task was begun
    assert len(closed) == 2


def test_an_mlflow_that_is_away_changes_no_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: object) -> None:
        raise TrackingFailed("nobody answers")

    monkeypatch.setattr(runs, "close", away)
    begun = {"class_noun": "dog", "parent_version": 0, "upload": "u", "task": "t0001"}
    Records(world.home.store, "pets").append("begun", concept="rex", **begun)
    end_upload.end_badly(world.home, "pets", "rex", None, "it died")
    assert world.states() == {"rex": "failed"}
    (kept,) = untold(world.home.store, "pets")  # told again with the line's next task
    assert (kept.task, kept.step[:3]) == ("t0001", "end") and "nobody answers" in kept.why
