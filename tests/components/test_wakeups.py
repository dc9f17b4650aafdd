"""Wake-ups from a queue, over HTTP, from neither and from several, and how they end."""

import http.client
import json
import logging
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from integration import servers
from object_stores import AT_HOME, Bucket, Meddler

from components.services import webhook as webhook_module
from components.services.events import MAX_BODY, Inbox
from components.services.wakeups import (
    MAX_LINES,
    Bell,
    HttpWakeups,
    NoWakeups,
    Several,
    SqsWakeups,
    Wakeups,
)
from l2dm.errors import BadInput

OURS = {"sqs-wakeups", "several-wakeups", "webhook", "webhook-request"}  # names of threads
LONG = 30.0  # seconds; no test waits for so long
LOG = "components.services.wakeups"
INBOX = Inbox("team-models", "lines")


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in OURS]


@pytest.fixture(autouse=True)
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
        "import sys; from components.services import wakeups; wakeups.NoWakeups(); "
        "sys.exit(any(name.split('.')[0] in ('boto3', 'botocore') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- over HTTP ---


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


def raw(source: HttpWakeups, request: bytes) -> bytes:
    """The whole answer to these bytes."""
    with socket.create_connection(("127.0.0.1", source.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("path", ["/", "/events", "/a/b?c=%2e%2e", "/healthz"])
def test_an_event_posted_to_any_path_wakes_its_line(open_webhook: HttpWakeups, path: str) -> None:
    began = time.monotonic()
    assert send(open_webhook, event("pets"), path=path) == (204, "")
    assert open_webhook.wait(LONG) == {"pets"}
    assert time.monotonic() - began < 5
    assert open_webhook.wait(0.05) == frozenset()


def test_an_event_wakes_who_already_waits(open_webhook: HttpWakeups) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(open_webhook.wait, LONG)
        time.sleep(0.1)
        assert send(open_webhook, event("pets")) == (204, "")
        assert waiting.result(5) == {"pets"}


def test_an_event_of_others_is_accepted_and_wakes_nobody(open_webhook: HttpWakeups) -> None:
    assert send(open_webhook, event("pets", bucket="theirs")) == (204, "")
    assert open_webhook.wait(0.1) == frozenset()


def test_senders_at_once_in_any_order_and_twice(open_webhook: HttpWakeups) -> None:
    lines = [f"line{number}" for number in range(20)]
    took = []
    for _ in range(3):
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda line: send(open_webhook, event(line)), [*lines, *lines]))
        took.append(time.monotonic() - began)
        assert answers == [(204, "")] * 40
        assert collected(open_webhook, *lines) == set(lines)
    assert min(took) < 1  # as long as one waits who finds the queue of the port full


@pytest.mark.parametrize("body", [b"", b"hello", b"[" * 100_000, b"\x00\xff", b'{"a": 1}'])
def test_what_is_no_event_is_answered_with_the_reason_and_logged_once(
    open_webhook: HttpWakeups, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    status, text = send(open_webhook, body)
    assert status == 400
    assert told(caplog) == [f"webhook: {text.rstrip()}"]
    assert "expected an event" in text
    assert send(open_webhook, event("pets")) == (204, "")  # it goes on
    assert open_webhook.wait(LONG) == {"pets"}


@pytest.mark.parametrize("given", ["", "x", "-1", "+5", "1_0", "²", "9" * 30])
def test_a_body_without_a_length_is_refused(open_webhook: HttpWakeups, given: str) -> None:
    header = f"Content-Length: {given}\r\n".encode("latin-1") if given else b""
    answer = raw(open_webhook, b"POST / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"expected a body with its Content-L" in answer


def test_a_huge_body_is_refused_by_its_length(open_webhook: HttpWakeups) -> None:
    assert send(open_webhook, b"{" * (MAX_BODY + 1))[0] == 413
    status, text = send(open_webhook, b" " * (5 * MAX_BODY))
    assert (status, text) == (413, "expected at most 1,048,576 bytes, found 5,242,880\n")
    largest = event("pets").ljust(MAX_BODY)
    assert send(open_webhook, largest) == (204, "")
    # a sender that only announces it is answered before a byte of it comes
    announced = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"
    assert raw(open_webhook, announced).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_ends_early_is_no_event(open_webhook: HttpWakeups) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + event("pets").encode()
    half = request[: len(request) // 2]
    assert raw(open_webhook, half).startswith(b"HTTP/1.1 400 ")
    assert open_webhook.wait(0.05) == frozenset()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic very secrét".encode()},
        {"Authorization": "very secrét".encode()},
        {"Authorization": "Bearer very secré".encode()},
        {"Authorization": "Bearer very secrét!".encode()},
        {"X_Token": "very secrét".encode()},
    ],
)
def test_a_wrong_token_is_refused_and_wakes_nobody(
    locked_webhook: HttpWakeups, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    status, text = send(locked_webhook, event("pets"), **given)
    assert (status, text) == (401, "expected the token as Authorization: Bearer\n")
    assert send(locked_webhook, b"x" * (2 * MAX_BODY), **given)[0] == 401
    assert locked_webhook.wait(0.05) == frozenset()
    assert "secr" not in caplog.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_right_token_wakes(locked_webhook: HttpWakeups, scheme: str) -> None:
    """As bytes of a header, without the line end that the file of a secret has."""
    right = f"{scheme} very secrét".encode()
    assert send(locked_webhook, event("pets"), Authorization=right) == (204, "")
    assert locked_webhook.wait(LONG) == {"pets"}


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_an_empty_token_does_not_open_the_webhook(token: str) -> None:
    with pytest.raises(BadInput, match=r"expected a token .* found an empty one; set it, or none"):
        HttpWakeups("127.0.0.1", 0, INBOX, token=token)


def test_health_needs_no_token_and_other_methods_are_refused(locked_webhook: HttpWakeups) -> None:
    assert send(locked_webhook, method="GET", path="/healthz") == (200, "ok\n")
    assert send(locked_webhook, method="GET", path="/healthz?probe=1")[0] == 200
    assert send(locked_webhook, method="GET", path="/")[0] == 404
    assert send(locked_webhook, method="PUT", path="/")[0] == 501
    answer = raw(locked_webhook, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Python" not in answer and b"Connection: close" in answer


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(open_webhook: HttpWakeups) -> None:
    """libcurl, which radosgw posts with, would wait for a second otherwise."""
    body = event("pets").encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", open_webhook.port), timeout=10) as connection:
        connection.sendall(f"{head}\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 204 ")
    assert open_webhook.wait(LONG) == {"pets"}


@pytest.mark.parametrize("request_", [b"\x16\x03\x01\x02\x00\x01\n", b"POST\r\n\r\n", b"\n" * 9])
def test_what_is_no_http_disturbs_nobody(
    open_webhook: HttpWakeups, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    raw(open_webhook, request_)
    assert send(open_webhook, event("pets")) == (204, "")
    assert open_webhook.wait(LONG) == {"pets"}
    assert capfd.readouterr().err == ""


def test_a_sender_that_hangs_up_is_no_error(
    open_webhook: HttpWakeups, caplog: pytest.LogCaptureFixture
) -> None:
    hard = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER for no time: a reset, no end
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", open_webhook.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        connection.close()
    assert send(open_webhook, event("pets")) == (204, "")
    assert eventually(lambda: "webhook-request" not in ours())
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_slow_senders_are_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, open_webhook: HttpWakeups
) -> None:
    assert webhook_module._Request.timeout == webhook_module.SILENCE == 10
    monkeypatch.setattr(webhook_module._Request, "timeout", 0.2)
    with socket.create_connection(("127.0.0.1", open_webhook.port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        began = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - began < 5


def test_a_crowd_of_silent_senders_does_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch, open_webhook: HttpWakeups
) -> None:
    monkeypatch.setattr(webhook_module, "MAX_CONNECTIONS", 4)
    crowd = [socket.create_connection(("127.0.0.1", open_webhook.port)) for _ in range(12)]
    try:
        assert send(open_webhook, method="GET", path="/healthz")[0] == 200
        assert send(open_webhook, event("pets")) == (204, "")
        assert eventually(lambda: ours().count("webhook-request") <= 4)
    finally:
        for connection in crowd:
            connection.close()


def test_closing_hangs_up_on_silent_senders(open_webhook: HttpWakeups) -> None:
    with socket.create_connection(("127.0.0.1", open_webhook.port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n")
        assert eventually(lambda: "webhook-request" in ours())
        assert closed_from_another_thread(open_webhook) < 5
        assert eventually(lambda: ours() == [])
    with pytest.raises(OSError):
        send(open_webhook, event("pets"))
    open_webhook.close()
    assert open_webhook.wait(LONG) == frozenset()


def test_a_place_where_nobody_can_listen_is_told(open_webhook: HttpWakeups) -> None:
    with pytest.raises(BadInput, match=rf"listen on 127\.0\.0\.1:{open_webhook.port}, found .*in"):
        HttpWakeups("127.0.0.1", open_webhook.port, INBOX)
    with pytest.raises(BadInput, match=r"listen on 127\.0\.0\.1:70000, found "):
        HttpWakeups("127.0.0.1", 70_000, INBOX)


def test_the_webhook_listens_on_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback on this machine: {error}")
    source = HttpWakeups("::1", 0, INBOX)
    connection = http.client.HTTPConnection("::1", source.port, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    source.close()


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


# --- a real gateway ---


def test_radosgw_wakes_a_line_through_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    where = servers.told()
    if where is None:
        pytest.skip("needs real servers: make test-integration")
    for variable, value in (AT_HOME | where.aws).items():
        monkeypatch.setenv(variable, value)
    import boto3

    name = f"wake-{uuid.uuid4().hex}"  # its own: radosgw 16 takes no empty configuration back
    source = HttpWakeups("127.0.0.1", 0, Inbox(name, "my lines+more"))
    try:
        topic = (
            boto3.session.Session()
            .client("sns")
            .create_topic(
                Name=name, Attributes={"push-endpoint": f"http://127.0.0.1:{source.port}/events"}
            )["TopicArn"]
        )
        notify = {"Id": "wake", "TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
        store = servers.client(where)
        store.create_bucket(Bucket=name)
        store.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"TopicConfigurations": [notify]}
        )
        for file in ("00.png", "concept.json"):
            key = f"my lines+more/inbox/pets/the größe/{file}"
            store.put_object(Bucket=name, Key=key, Body=b"{}")
        assert source.wait(5) == {"pets"}
    finally:
        source.close()
