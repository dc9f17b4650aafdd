"""Aliases that somebody moved by hand are noticed, recorded and set back."""

from pathlib import Path

import pytest

from components.services.line.leases import Leases
from components.services.line.records import Records
from pipelines.dispatcher.dispatcher import DispatchPolicy
from tests.worlds.dispatch_world import World


def test_an_alias_moved_by_hand_is_told_and_set_back_before_the_next_task(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("mimi", "rex"):
        world.upload("pets", name)
        world.dispatcher.reconcile("pets")
        world.finish()
    world.registry.set_alias("pets", "champion", 1)
    world.upload("pets", "sunny")
    world.dispatcher.reconcile("pets")
    assert "alias champion named version 1, the records say 2" in caplog.text
    world.finish()
    assert world.chain() == [(0, 1), (1, 2), (2, 3)]


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
