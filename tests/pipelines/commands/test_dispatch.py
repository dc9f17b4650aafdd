"""`l2dm dispatch`: what it opened is closed, whatever keeps it from starting."""

import socket
from pathlib import Path

import pytest

from components.services.store.home import Home
from components.services.wakeups import sources
from l2dm.errors import BadInput, BadStore
from pipelines.commands.dispatch import Service, serve
from pipelines.commands.target import Target
from pipelines.places import open as places
from pipelines.places.runs import LocalRuns
from tests.worlds.object_stores import Bucket


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Places that were opened and closed again."""
    seen = list[str]()

    class Watched(LocalRuns):
        def __init__(self, home: Home) -> None:
            super().__init__(home)
            seen.append("opened")

        def close(self) -> None:
            seen.append("closed")
            super().close()

    monkeypatch.setattr(places, "open_runs", lambda runner, settings, home, base: Watched(home))
    return seen


def test_runs_are_closed_where_nothing_can_wake_the_dispatcher(
    tmp_path: Path, closed: list[str]
) -> None:
    service = Service(once=True, listen="127.0.0.1:0")
    with pytest.raises(BadStore, match="a folder sends no events"):
        list(serve(Target(tmp_path, "", "pocket"), service))
    assert closed == ["opened", "closed"]


def test_runs_are_closed_at_the_end(tmp_path: Path, closed: list[str]) -> None:
    assert list(serve(Target(tmp_path, "", "pocket"), Service(once=True))) == []
    assert closed == ["opened", "closed"]


def test_a_port_is_closed_where_the_queue_cannot_be_opened(
    tmp_path: Path, moto_bucket: Bucket, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))

    def refuse(poll: int) -> None:
        raise BadInput("expected AWS settings for a queue")

    monkeypatch.setattr(sources, "_connect", refuse)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"s3://{moto_bucket.name}/{moto_bucket.prefix}"
    service = Service(once=True, queue="http://queue", listen=f"127.0.0.1:{port}")
    with pytest.raises(BadInput, match="AWS settings for a queue"):
        list(serve(Target(place, "", "pocket"), service))
    assert closed == ["opened", "closed"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # nobody listens any more
