"""When the dispatcher looks: at woken lines at once, at all every so often, through outages."""

import pytest

from components.services.store.folder import FolderObjects
from l2dm.errors import BadStore
from pipelines.dispatcher.loop import follow
from tests.worlds.dispatch_world import Rings, World


def test_a_woken_line_is_looked_at_before_the_next_scan(world: World) -> None:
    world.upload("pets", "rex")
    world.upload("cars", "bolt")
    moves = follow(world.dispatcher, Rings("cars", "nobody", "pets"), 3600, once=False)
    assert [next(moves), next(moves)] == [("cars", "started"), ("pets", "waits")]
    world.finish()
    assert next(moves) == ("cars", "idle")  # woken, an hour before the scan
    assert next(moves) == ("pets", "started")
    assert "nobody" not in world.home.lines()


def test_following_once_ends_when_nothing_waits_or_runs(world: World) -> None:
    world.upload("pets", "rex")
    found = []
    for line, moved in follow(world.dispatcher, Rings(), 0.0, once=True):
        found.append((line, moved))
        if moved == "running":
            world.finish()
    assert found == [("pets", "started"), ("pets", "running"), ("pets", "idle")]


class Silence:
    """No wake-ups."""

    def wait(self, seconds: float) -> frozenset[str]:
        return frozenset()

    def close(self) -> None:
        pass


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
