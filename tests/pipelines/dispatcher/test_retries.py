"""Runs that failed are tried again, later each time; an outage uses up no attempts."""

from pathlib import Path

import pytest

from components.services.line.records import Records
from components.services.line.run_journal import Failure
from l2dm.errors import PlatformError
from pipelines.dispatcher.dispatcher import DispatchPolicy
from pipelines.places.run_here import Job
from tests.worlds.dispatch_world import World


def test_a_failed_run_is_tried_again_later_and_at_last_failed(world: World) -> None:
    world.upload("pets", "rex")
    broken = Failure("train", "RuntimeError", ("out of memory",))
    look = world.dispatcher.reconcile
    for pause in (30.0, 60.0):
        assert look("pets") == "started"
        world.runs.fail(world.runs.running()[0], broken)
        assert look("pets") == "retried"
        world.now += pause - 1
        assert look("pets") == "waits"
        world.now += 1
    assert look("pets") == "started"
    world.runs.fail(world.runs.running()[0], broken)
    assert look("pets") == "ended"
    (state,) = Records(world.home.store, "pets").concepts()
    assert (state.state, state.reasons) == ("failed", ("step train: RuntimeError: out of memory",))
    assert look("pets") == "idle"


@pytest.mark.parametrize("kind", ["TrackingFailed", "BadDoor", "OSError", "ConnectionError"])
def test_trouble_of_the_house_uses_up_no_attempts(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, DispatchPolicy(attempts=2, backoff=0.0))
    world.upload("pets", "rex")
    away = Failure("promote", kind, ("it does not answer",))
    for _ in range(30):
        assert world.dispatcher.reconcile("pets") == "started"
        world.runs.fail(world.runs.running()[0], away)
        assert world.dispatcher.reconcile("pets") == "retried"
    world.dispatcher.reconcile("pets")
    world.finish()
    assert world.states() == {"rex": "promoted"}


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


def test_a_place_that_refuses_runs_is_asked_for_hours_and_the_cause_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str, job: Job) -> None:
        raise PlatformError("expected Kubeflow Pipelines to make a run, found HTTP 403 (quota)")

    world.upload("pets", "rex")
    with monkeypatch.context() as quota:
        quota.setattr(world.runs, "start", start)
        for _ in range(6):
            assert world.dispatcher.reconcile("pets") == "broken"
            assert world.dispatcher.reconcile("pets") == "retried"
            world.now += 700
    (reason,) = Records(world.home.store, "pets").events()[-1].facts["reasons"]
    assert "it was never started" in reason
    assert "HTTP 403 (quota)" in reason
    assert world.dispatcher.reconcile("pets") == "started"
    world.finish()
    world.dispatcher.look()
    assert world.states() == {"rex": "promoted"}
