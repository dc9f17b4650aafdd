"""What the tests of wake-ups share: events, sources that a test rings, and no thread left."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.services.wakeups import webhook as webhook_module
from components.services.wakeups.events import Inbox
from components.services.wakeups.sources import Bell, HttpWakeups, Wakeups

OURS = {"sqs-wakeups", "several-wakeups", "webhook", "webhook-request"}  # names of threads
LONG = 30.0  # seconds; no test waits for so long
LOG = "components.services.wakeups.sources"
INBOX = Inbox("team-models", "lines")


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in OURS]


@pytest.fixture
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(webhook_module, "TICK", 0.01)  # closing is what most tests wait for
    assert ours() == []
    yield
    assert eventually(lambda: ours() == []), ours()


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def event(*lines: str, bucket: str = "team-models", prefix: str = "lines") -> str:
    keys = [f"{prefix}/inbox/{line}/rex/concept.json" for line in lines]
    return json.dumps(
        {"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]}
    )


def collected(source: Wakeups, *lines: str, seconds: float = 10.0) -> set[str]:
    """What a source tells until it told all of these."""
    until, told = time.monotonic() + seconds, set[str]()
    while not told >= set(lines) and time.monotonic() < until:
        told |= source.wait(until - time.monotonic())
    return told


def told(caplog: pytest.LogCaptureFixture, logger: str = LOG) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


def closed_from_another_thread(source: Wakeups) -> float:
    """Seconds that a wait goes on once another thread closes its source."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(source.wait, LONG)
        time.sleep(0.1)
        assert not waiting.done()
        began = time.monotonic()
        source.close()
        assert waiting.result() == frozenset()
    return time.monotonic() - began


class Rung:
    """A source that a test rings by hand."""

    def __init__(self) -> None:
        self.bell = Bell()

    def wait(self, seconds: float) -> frozenset[str]:
        return self.bell.wait(seconds)

    def close(self) -> None:
        self.bell.close()


@pytest.fixture
def open_webhook() -> Iterator[HttpWakeups]:
    source = HttpWakeups("127.0.0.1", 0, INBOX)
    yield source
    source.close()


@pytest.fixture
def locked_webhook() -> Iterator[HttpWakeups]:
    source = HttpWakeups("127.0.0.1", 0, INBOX, token="very secrét\n")
    yield source
    source.close()


def send(
    source: HttpWakeups,
    body: bytes | str = b"",
    *,
    method: str = "POST",
    path: str = "/",
    **headers: str | bytes,
) -> tuple[int, str]:
    """Status and text of the answer to one request."""
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=10)
    try:
        data = body.encode() if isinstance(body, str) else body
        connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
