"""Checks on the dispatcher's clock: begun once, before uploads, tried again, given up, told."""

import logging
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.services.line.records import Records
from l2dm.errors import BadSpec, PlatformError
from pipelines.commands.checks.schedule import Timekeeper, set_clock
from pipelines.commands.lines.status import last_checks
from pipelines.commands.target import Target
from pipelines.dispatcher.dispatcher import DispatchPolicy
from pipelines.places.run_here import Job
from tests.worlds.dispatch_world import World, expire

NIGHTLY = "0 3 * * *"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A line with one champion, checked every night; its clock stands at half past three."""
    world = World(tmp_path, DispatchPolicy(attempts=2, backoff=30.0))
    world.upload("pets", "rex")
    world.dispatcher.look()
    world.finish()
    world.dispatcher.look()
    settings = ("check.policy=roll_back",)
    set_clock(target(world, settings), NIGHTLY, Timekeeper())
    tomorrow = time.time() + 24 * 3600
    noon = datetime.fromtimestamp(tomorrow, UTC).replace(hour=12)
    world.now = noon.timestamp()
    return world


def target(world: World, settings: tuple[str, ...] = ()) -> Target:
    return Target(world.home.folder, "pets", "pocket", settings)


def reasons(world: World) -> str:
    """Why the line's last event happened."""
    *_, last = Records(world.home.store, "pets").events()
    return "; ".join(last.facts["reasons"])


def job(world: World) -> Job:
    (name,) = world.runs.running()
    return world.runs.jobs[name]


def test_a_due_check_is_begun_once_with_its_own_settings(world: World) -> None:
    assert world.dispatcher.look() == {"pets": "checking"}
    assert job(world).pipeline == "check_forgetting"
    assert '"policy": "roll_back"' in job(world).spec
    assert world.dispatcher.look() == {"pets": "checking"}
    assert world.another().look() == {"pets": "busy"}
    world.finish()
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.kinds().count("checked") == 1


def test_a_check_goes_before_an_upload_and_the_upload_follows(world: World) -> None:
    world.upload("pets", "mimi")
    assert world.dispatcher.look() == {"pets": "checking"}
    world.finish()
    assert world.dispatcher.look() == {"pets": "started"}
    world.finish()
    world.dispatcher.look()
    assert world.states() == {"rex": "promoted", "mimi": "promoted"}


def test_a_check_that_is_always_due_does_not_keep_uploads_waiting(world: World) -> None:
    set_clock(target(world), "* * * * *", Timekeeper())
    for name in ("mimi", "bo"):
        world.upload("pets", name)
    seen = []
    for _ in range(4):
        world.now += 120
        seen.append(world.dispatcher.look()["pets"])
        world.finish()
    assert seen == ["checking", "started", "checking", "started"]


def test_a_check_that_died_is_tried_again_then_given_up_until_the_next_night(world: World) -> None:
    world.dispatcher.look()
    world.runs.fail(world.runs.running()[0], None)
    assert world.dispatcher.look() == {"pets": "retried"}
    assert world.dispatcher.look() == {"pets": "idle"}  # its time has not come
    world.now += 31
    assert world.dispatcher.look() == {"pets": "checking"}
    world.runs.fail(world.runs.running()[0], None)
    assert world.dispatcher.look() == {"pets": "unchecked"}
    world.now += 3600
    assert world.dispatcher.look() == {"pets": "idle"}
    world.now += 24 * 3600
    assert world.dispatcher.look() == {"pets": "checking"}


def test_a_clock_whose_settings_do_not_go_with_ours_is_told_why_and_keeps_no_upload_waiting(
    world: World,
) -> None:
    records = Records(world.home.store, "pets")
    records.append("scheduled", line="pets", cron=NIGHTLY, settings=["check.margin=-1"])
    world.upload("pets", "mimi")
    world.now += 24 * 3600
    assert world.dispatcher.look() == {"pets": "retried"}
    assert not world.runs.running()
    assert (world.kinds().count("checking"), world.kinds()[-1]) == (0, "unchecked")
    assert "margin" in reasons(world) and "found -1" in reasons(world)
    assert world.dispatcher.look() == {"pets": "started"}  # its time has not come
    world.finish()
    world.dispatcher.look()
    world.now += 31
    assert world.dispatcher.look() == {"pets": "unchecked"}
    world.now += 3600
    assert world.dispatcher.look() == {"pets": "idle"}


def test_a_check_that_a_place_refuses_is_told_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, job: Job) -> None:
        raise PlatformError("the server has no room")

    monkeypatch.setattr(world.runs, "start", refuse)
    assert world.dispatcher.look() == {"pets": "broken"}
    assert world.dispatcher.look() == {"pets": "retried"}
    assert reasons(world) == "it was never started: the server has no room"


def test_a_check_whose_dispatcher_died_before_its_start_found_nothing_but_was_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.runs, "start", lambda name, job: None)
    world.dispatcher.look()
    assert world.dispatcher.look() == {"pets": "retried"}
    assert reasons(world) == "it was never started"


def test_a_clock_holds_what_a_check_reads_and_nothing_else(world: World) -> None:
    kept = ("check.margin=0.2", "evaluate.distractors=3")
    assert set_clock(target(world, kept), NIGHTLY, Timekeeper())["settings"] == [*kept]
    wrong = ("train.steps=3", "l2dm.replay=0.5", "check.margin=0.3")
    with pytest.raises(BadSpec) as caught:
        set_clock(target(world, wrong), NIGHTLY, Timekeeper())
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        *("setting 'train.steps=3'", "setting 'l2dm.replay=0.5'"),
    ]
    assert set_clock(target(world), None, Timekeeper())["settings"] == [*kept]


def test_another_dispatcher_takes_a_check_over(world: World) -> None:
    world.dispatcher.look()
    expire(world)
    other = world.another()
    assert other.look() == {"pets": "retried"}
    assert len(world.runs.stopped) == 1
    world.now += 31
    assert other.look() == {"pets": "checking"}
    world.finish()
    assert other.look() == {"pets": "idle"}


def test_a_regression_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.runs.health = lambda line: "regressed"
    world.dispatcher.look()
    world.finish()
    with caplog.at_level(logging.WARNING):
        world.dispatcher.look()
    assert "line pets: version 1 is regressed (cause: model): made up" in caplog.text
    assert last_checks(world.home, ["pets"])["pets"].endswith(": regressed")


def test_a_clock_can_be_read_and_ended(world: World) -> None:
    now = set_clock(target(world), None, Timekeeper())
    assert (now["cron"], now["settings"]) == (NIGHTLY, ["check.policy=roll_back"])
    assert (now["keeper"], now["next"][10:19]) == ("dispatcher", "T03:00:00")
    set_clock(target(world), "", Timekeeper())
    assert world.dispatcher.look() == {"pets": "idle"}
    kinds = [event.kind for event in Records(world.home.store, "pets").events()]
    assert kinds.count("scheduled") == 2
