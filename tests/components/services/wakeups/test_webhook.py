"""Events over HTTP: what wakes, what is refused, and who is hung up on."""

import http.client
import logging
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from components.services.wakeups import webhook as webhook_module
from components.services.wakeups.events import MAX_BODY, Inbox
from components.services.wakeups.sources import HttpWakeups
from l2dm.errors import BadInput
from tests.integration import servers
from tests.worlds.object_stores import AT_HOME
from tests.worlds.wakeup_sources import (
    INBOX,
    LONG,
    closed_from_another_thread,
    collected,
    event,
    eventually,
    ours,
    send,
    told,
)

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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
