"""Wake-ups from a queue, over HTTP, from neither and from several, and how they end."""

import json
import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from components.services.wakeups.events import Inbox
from components.services.wakeups.sources import (
    MAX_LINES,
    Bell,
    HttpWakeups,
    NoWakeups,
    Several,
    SqsWakeups,
)
from l2dm.errors import BadInput
from tests.worlds.object_stores import Bucket, Meddler
from tests.worlds.wakeup_sources import (
    INBOX,
    LOG,
    LONG,
    Rung,
    closed_from_another_thread,
    collected,
    event,
    eventually,
    ours,
    send,
    told,
)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

# --- none, and the bell under all of them ---


def test_no_wakeups_sleep_as_long_as_they_are_told() -> None:
    source = NoWakeups()
    began = time.monotonic()
    assert source.wait(0.2) == source.wait(0) == source.wait(-1) == frozenset()
    assert 0.19 < time.monotonic() - began < 5
    assert closed_from_another_thread(source) < 5
    assert source.wait(LONG) == frozenset()
    source.close()


def test_a_bell_forgets_nothing_between_two_waits_and_tells_once() -> None:
    bell = Bell()
    bell.ring(frozenset({"pets"}))
    bell.ring(frozenset({"cars", "pets"}))
    assert bell.wait(0) == {"pets", "cars"}
    assert bell.wait(0) == frozenset()


def test_a_bell_keeps_a_flood_of_forged_lines_small() -> None:
    bell = Bell()
    for part in range(3):
        bell.ring(frozenset(f"line{part}-{number}" for number in range(MAX_LINES // 2 + 1)))
    assert len(bell.wait(0)) == MAX_LINES


def test_many_threads_ring_for_one_that_waits() -> None:
    bell, lines = Bell(), [f"line{number}" for number in range(400)]
    heard = set[str]()
    with ThreadPoolExecutor(16) as pool:
        rings = [pool.submit(bell.ring, frozenset({line})) for line in lines]
        until = time.monotonic() + 10
        while len(heard) < len(lines) and time.monotonic() < until:
            heard |= bell.wait(0.1)
        assert all(ring.result() is None for ring in rings)
    assert heard == set(lines)


# --- a queue ---


@dataclass(frozen=True)
class Queue:
    url: str
    client: Any

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> int:
        """Messages in it, those included that somebody received and did not delete."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)


@pytest.fixture
def queue(moto_bucket: Bucket) -> Queue:
    import boto3

    client = boto3.session.Session().client("sqs")
    return Queue(client.create_queue(QueueName=f"q-{uuid.uuid4().hex}")["QueueUrl"], client)


@pytest.fixture
def sqs(queue: Queue) -> Iterator[SqsWakeups]:
    source = SqsWakeups(queue.url, INBOX, poll=1)
    yield source
    source.close()


def test_an_upload_to_the_bucket_wakes_its_line_through_the_queue(
    moto_bucket: Bucket, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    arn = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
    notify = {"QueueArn": arn["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
    moto_bucket.client.put_bucket_notification_configuration(
        Bucket=moto_bucket.name, NotificationConfiguration={"QueueConfigurations": [notify]}
    )
    assert queue.left() == 1  # the test event
    source = SqsWakeups(queue.url, Inbox(moto_bucket.name, moto_bucket.prefix), poll=1)
    try:
        assert source.wait(0.5) == frozenset()
        moto_bucket.put("inbox/pets/the größe+1/00.png", b"picture")
        moto_bucket.put("inbox/pets/the größe+1/concept.json", b"{}")
        began = time.monotonic()
        assert source.wait(LONG) == {"pets"}
        assert time.monotonic() - began < 5
        assert eventually(lambda: queue.left() == 0)
    finally:
        source.close()
    assert told(caplog) == []


def test_doubled_and_reordered_messages_of_many_batches(queue: Queue, sqs: SqsWakeups) -> None:
    lines = [f"line{number}" for number in range(23)]
    queue.send(*(event(line) for line in [*lines, *reversed(lines)]))
    queue.send(event("pets", "cars"))
    assert collected(sqs, *lines, "pets", "cars") == {*lines, "pets", "cars"}
    assert eventually(lambda: queue.left() == 0)


def test_a_message_that_is_no_event_is_told_once_and_deleted(
    queue: Queue, sqs: SqsWakeups, caplog: pytest.LogCaptureFixture
) -> None:
    queue.send("not JSON", json.dumps({"hello": "world"}), event("pets"))
    assert collected(sqs, "pets") == {"pets"}
    assert eventually(lambda: queue.left() == 0)
    name = queue.url.rpartition("/")[2]
    assert sorted(told(caplog)) == [
        f"queue {name}: expected an event about an object, found an object with 'hello'",
        f"queue {name}: expected an event in JSON, found 'not JSON'",
    ]


def test_a_queue_that_is_not_there_yet_is_told_once_and_waited_for(
    moto_bucket: Bucket, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"later-{uuid.uuid4().hex}"
    url = f"{queue.url.rpartition('/')[0]}/{name}"
    caplog.set_level(logging.INFO, LOG)
    source = SqsWakeups(url, INBOX, poll=1, pause=0.02)
    try:
        assert source.wait(0.4) == frozenset()
        (warning,) = told(caplog)
        assert f"queue {name}: expected messages, found " in warning
        assert "NonExistentQueue; check its URL" in warning and "periodic scan" in warning
        assert queue.client.create_queue(QueueName=name)["QueueUrl"] == url
        Queue(url, queue.client).send(event("pets"))
        assert source.wait(LONG) == {"pets"}
        assert eventually(lambda: told(caplog)[1:] == [f"queue {name} answers again"])
    finally:
        source.close()


@pytest.mark.parametrize("moment", ["receive_message", "delete_message_batch"])
def test_errors_of_every_kind_are_told_without_secrets_and_survived(
    queue: Queue, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    from botocore.exceptions import ClientError, EndpointConnectionError
    from botocore.parsers import ResponseParserError

    denied: Any = {"Error": {"Code": "AccessDenied", "Message": "key AKIA-SECRET may not"}}
    errors = [
        ClientError(denied, moment),
        EndpointConnectionError(endpoint_url="http://me:AKIA-SECRET@127.0.0.1"),
        ResponseParserError("<html>AKIA-SECRET"),
        ConnectionResetError("AKIA-SECRET"),
        ConnectionResetError("AKIA-SECRET"),
    ]

    def fail(real: Callable[..., Any], **arguments: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return real(**arguments)

    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "0"})
    queue.send(event("pets"))
    meddler = Meddler(queue.client, {moment: fail})
    source = SqsWakeups(queue.url, INBOX, client=meddler, poll=1, pause=0.01)
    try:
        assert source.wait(LONG) == {"pets"}
        assert eventually(lambda: queue.left() == 0)
    finally:
        source.close()
    found = [message.partition(" found ")[2].partition(";")[0] for message in told(caplog)]
    kinds = ["AccessDenied", "EndpointConnectionError", "ResponseParserError"]
    assert found == [*kinds, "ConnectionResetError"]
    assert "AKIA-SECRET" not in caplog.text


def test_a_message_that_the_queue_keeps_is_told(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    kept = []

    def keep(real: Callable[..., Any], **arguments: Any) -> Any:
        if kept:
            return real(**arguments)
        kept.append(1)
        return {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}

    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"VisibilityTimeout": "0"})
    queue.send(event("pets"))
    source = SqsWakeups(
        queue.url, INBOX, client=Meddler(queue.client, {"delete_message_batch": keep}), poll=1
    )
    try:
        assert source.wait(LONG) == {"pets"}
        assert eventually(lambda: queue.left() == 0)  # it came again
    finally:
        source.close()
    (warning,) = told(caplog)
    assert warning.endswith("a message was not deleted: InternalError")


def test_an_endpoint_that_hangs_delays_nobody(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan and the leases of the dispatcher go on: only a thread waits for the queue."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        source = SqsWakeups(f"http://127.0.0.1:{port}/123456789012/q", INBOX, poll=1)
        connection, _ = silent.accept()  # the request is on its way
        began = time.monotonic()
        assert source.wait(0.1) == frozenset()
        assert time.monotonic() - began < 5
        connection.close()
        source.close()


def test_closing_ends_a_wait_for_the_queue(queue: Queue, sqs: SqsWakeups) -> None:
    assert closed_from_another_thread(sqs) < 5  # a request on its way is answered within one
    assert ours() == []
    sqs.close()
    assert sqs.wait(LONG) == frozenset()


def test_settings_that_are_none_are_told_at_once(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    with pytest.raises(BadInput, match=r"AWS settings for a queue, found ValueError; check AWS_E"):
        SqsWakeups("http://127.0.0.1/q", INBOX)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BadInput, match=r"AWS settings for a queue, found ProfileNotFound"):
        SqsWakeups("http://127.0.0.1/q", INBOX)


def test_boto3_is_loaded_by_the_constructor_only() -> None:
    code = (
        "import sys; from components.services.wakeups.sources import NoWakeups; NoWakeups(); "
        "sys.exit(any(name.split('.')[0] in ('boto3', 'botocore') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- several ---


def test_several_wake_on_whichever_is_first(open_webhook: HttpWakeups) -> None:
    by_hand = Rung()
    source = Several(NoWakeups(), by_hand, open_webhook)
    assert source.wait(0.1) == frozenset()
    by_hand.bell.ring(frozenset({"pets"}))
    assert source.wait(LONG) == {"pets"}
    assert send(open_webhook, event("cars")) == (204, "")
    assert source.wait(LONG) == {"cars"}
    source.close()


def test_several_lose_nothing_between_two_waits() -> None:
    sources = [Rung() for _ in range(3)]
    source = Several(*sources)
    lines = [f"line{number}" for number in range(99)]
    for number, line in enumerate(lines):
        sources[number % 3].bell.ring(frozenset({line}))
    assert collected(source, *lines) == set(lines)
    source.close()


def test_closing_several_closes_each_and_ends_the_wait(open_webhook: HttpWakeups) -> None:
    by_hand = Rung()
    source = Several(by_hand, NoWakeups(), open_webhook)
    assert closed_from_another_thread(source) < 5
    assert by_hand.bell.closed.is_set()
    assert eventually(lambda: ours() == [])
    source.close()
    assert source.wait(LONG) == frozenset()


def test_several_of_none_sleep() -> None:
    source = Several()
    began = time.monotonic()
    assert source.wait(0.1) == frozenset()
    assert time.monotonic() - began > 0.09
    source.close()
