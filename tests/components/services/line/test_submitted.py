"""Submitting by somebody who may not append events: found all the same, or refused with why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.services.line.ledger import Event, summed
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from l2dm.doors import Concept
from l2dm.errors import ClosedStore
from l2dm.spec import IntakeSpec
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.dispatcher.dispatcher import DispatchPolicy
from tests.worlds.dispatch_world import World
from tests.worlds.uploads import pictures

SPEC = IntakeSpec(min_side=8)
REX = Concept("rex", "dog")


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """closed(True): from now on nobody may write below records/."""
    create, shut = FolderObjects.create, [False]

    def refused(self: FolderObjects, key: str, data: bytes) -> Any:
        if shut[0] and key.startswith("records/"):
            raise ClosedStore("expected s3://team to be open to us, found AccessDenied (HTTP 403)")
        return create(self, key, data)

    def close(now: bool) -> None:
        shut[0] = now

    monkeypatch.setattr(FolderObjects, "create", refused)
    return close


def test_an_upload_is_found_without_its_event(
    tmp_path: Path, closed: Callable[[bool], None]
) -> None:
    world = World(tmp_path, DispatchPolicy(attempts=1))

    def submit(first: int) -> None:
        closed(True)
        given = pictures(tmp_path / f"in-{first}", first=first)
        submit_pictures(world.home, given, "pets", REX, SPEC)
        closed(False)

    for started in range(2):
        submit(20 * started)
        assert world.dispatcher.reconcile("pets", whole=True) == "started"
        (name,) = world.runs.running()
        world.runs.fail(name, None)
        assert world.dispatcher.look() == {"pets": "ended"}
        assert world.states() == {"rex": "failed"}
        assert len(world.runs.jobs) == started + 1

    with pytest.raises(ClosedStore, match=r"other pictures than those that ended as failed, or .*"):
        submit(20)  # the very ones that have ended
    assert world.dispatcher.reconcile("pets", whole=True) == "idle"
    submit(10)  # in its place: an event or the next whole listing finds it
    assert world.dispatcher.reconcile("pets", whole=True) == "started"
    world.finish()
    world.dispatcher.look()
    assert world.states() == {"rex": "promoted"}
    assert "submitted" not in world.kinds()


def test_another_trouble_of_the_store_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FolderObjects, "create", full)
    with pytest.raises(OSError, match="No space"):
        submit_pictures(Home.at(tmp_path / "home"), pictures(tmp_path / "in"), "pets", REX, SPEC)


def test_submitted_opens_what_has_ended_unless_it_comes_late() -> None:
    named = {"concept": "rex", "class_noun": "dog", "upload": "u", "by": "x", "at": ""}
    end = {"task": "", "state": "failed", "version": None, "reasons": []}
    run = {"run": "r", "attempt": 1, "fence": 1}
    told = [("submitted", {"since": 0}), ("started", run), ("ended", end)]

    def state(*more: tuple[str, dict[str, object]]) -> str:
        events = [*told, *more]
        numbered = enumerate(events, start=1)
        ledger = summed([Event(n, kind, named | facts) for n, (kind, facts) in numbered])  # type: ignore[arg-type]
        return ledger.concepts["rex"].state

    assert state() == "failed"
    assert state(("submitted", {"since": 0})) == "failed"  # of the upload that has ended since
    assert state(("submitted", {"since": 3})) == "waiting"  # the same pictures once more
    assert state(("submitted", {"since": 0, "upload": "other"})) == "waiting"
    assert state(("submitted", {"upload": ""})) == "waiting"  # as older releases wrote it
