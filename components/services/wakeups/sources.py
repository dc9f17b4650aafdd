"""Wake-ups: reasons to look at a line before the periodic scan comes by.

Each kind alone is enough, none is too: whatever is lost here, the next scan finds it.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from components.services.wakeups.events import Inbox, lines_of
from components.services.wakeups.webhook import Pages, Webhook
from l2dm.errors import BadInput

MAX_LINES = 10_000  # names kept until somebody waits; a flood of forged ones ends there
BATCH = 10  # messages of one request, SQS's most
POLL = 5  # seconds that one request waits for messages; close() has to wait for it
CONNECT_SECONDS = 5
LONGEST_PAUSE = 60.0  # seconds between two tries of a queue that does not answer
LISTEN = 60.0  # seconds

log = logging.getLogger(__name__)


class Wakeups(Protocol):
    """Tells which lines to look at."""

    def wait(self, seconds: float) -> frozenset[str]:
        """Lines to look at, as soon as there are any; none when time is up or after close()."""

    def close(self) -> None:
        """End a wait in another thread, and every thread of its own. May be called twice."""


class NoWakeups:
    """Sleeps: the periodic scan alone."""

    def __init__(self) -> None:
        self._bell = Bell()

    def wait(self, seconds: float) -> frozenset[str]:
        """See Wakeups."""
        return self._bell.wait(seconds)

    def close(self) -> None:
        """See Wakeups."""
        self._bell.close()


class SqsWakeups:
    """Events from an SQS queue that the bucket, an SNS topic or EventBridge writes to.

    A message is deleted once its lines were handed over, before anybody looked at them; one that is
    no event is told and deleted. A process that dies in between loses a reason to look sooner, no
    upload: the periodic scan finds it. While the queue does not answer, this is told once per kind
    of error and tried again after pauses that grow to a minute.
    """

    def __init__(
        self,
        queue_url: str,
        inbox: Inbox,
        *,
        client: Any = None,
        poll: int = POLL,
        pause: float = 1.0,
    ) -> None:
        """Raises BadInput when the AWS settings are no settings. pause: seconds, the first one."""
        self._url, self._inbox = queue_url, inbox
        self._name = f"queue {queue_url.rpartition('/')[2]}"
        self._poll, self._pause = poll, pause
        self._client = _connect(poll) if client is None else client
        self._bell = Bell()
        self._thread = threading.Thread(target=self._listen, name="sqs-wakeups", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> frozenset[str]:
        """See Wakeups."""
        return self._bell.wait(seconds)

    def close(self) -> None:
        """See Wakeups. Takes until the request on its way is answered, `poll` seconds as a rule."""
        self._bell.close()
        self._thread.join(self._poll + CONNECT_SECONDS)

    def _listen(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        pause, told = self._pause, ""
        while not self._bell.closed.is_set():
            try:
                self._hand_over(self._receive())
            except (BotoCoreError, ClientError, ResponseParserError, OSError) as error:
                reason = _reason(error)
                if reason != told:
                    log.warning(
                        "%s: expected messages, found %s; check its URL, the AWS settings and the "
                        "queue's policy. Until then the periodic scan finds uploads",
                        self._name,
                        reason,
                    )
                self._bell.closed.wait(pause)
                pause, told = min(2 * pause, LONGEST_PAUSE), reason
                continue
            if told:
                log.info("%s answers again", self._name)
            pause, told = self._pause, ""

    def _receive(self) -> Sequence[Mapping[str, Any]]:
        answer = self._client.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=self._poll
        )
        messages: Sequence[Mapping[str, Any]] = answer.get("Messages", ())
        return messages

    def _hand_over(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if not messages:
            return
        for message in messages:
            hear(self._bell, self._name, message.get("Body", ""), self._inbox)
        entries = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(messages)
        ]
        answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        for failed in answer.get("Failed", ()):  # it comes again, and wakes once more
            log.warning("%s: a message was not deleted: %s", self._name, failed.get("Code"))


class HttpWakeups:
    """Events that are posted to us over HTTP, by MinIO, radosgw, EventBridge or whoever has them.

    POST to any path is answered with 204, or with 400 (no event), 401 or 413 and the reason;
    GET /healthz with 200 while this process lives. token: what senders give as `Authorization:
    Bearer`; without one whoever reaches the port may wake us, and can do nothing else.
    pages: what else GET answers, to whoever asks.
    """

    def __init__(
        self,
        host: str,
        port: int,
        inbox: Inbox,
        token: str | None = None,
        pages: Pages | None = None,
    ) -> None:
        """Port 0 takes a free one. Raises BadInput when it cannot listen there."""
        self._bell = Bell()
        self._webhook = Webhook(
            host, port, lambda body: hear(self._bell, "webhook", body, inbox), token, pages
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._webhook.port

    def wait(self, seconds: float) -> frozenset[str]:
        """See Wakeups."""
        return self._bell.wait(seconds)

    def close(self) -> None:
        """See Wakeups."""
        self._webhook.close()
        self._bell.close()


class Several:
    """Wakes on the first of many, which are its own from now on: closed when it is closed."""

    def __init__(self, *sources: Wakeups) -> None:
        self._bell, self._sources = Bell(), sources
        self._threads = [
            threading.Thread(
                target=self._listen, args=(source,), name="several-wakeups", daemon=True
            )
            for source in sources
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> frozenset[str]:
        """See Wakeups."""
        return self._bell.wait(seconds)

    def close(self) -> None:
        """See Wakeups."""
        self._bell.close()
        for source in self._sources:
            source.close()
        for thread in self._threads:
            thread.join()

    def _listen(self, source: Wakeups) -> None:
        while not self._bell.closed.is_set():
            self._bell.ring(source.wait(LISTEN))


class Bell:
    """Lines that threads ring for, until one waits for them."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._changed = threading.Condition()
        self._lines: set[str] = set()

    def ring(self, lines: frozenset[str]) -> None:
        """Hand lines over to who waits, now or later."""
        with self._changed:
            room = MAX_LINES - len(self._lines)
            self._lines.update(sorted(lines - self._lines)[:room])
            self._changed.notify_all()

    def wait(self, seconds: float) -> frozenset[str]:
        """See Wakeups."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self.closed.is_set(), seconds)
            lines, self._lines = frozenset(self._lines), set()
            return lines

    def close(self) -> None:
        """See Wakeups."""
        with self._changed:
            self.closed.set()
            self._changed.notify_all()


def hear(bell: Bell, source: str, body: bytes | str, inbox: Inbox) -> str:
    """Ring for the lines of one message; or say why it is none, which is also logged."""
    try:
        bell.ring(lines_of(body, inbox))
    except BadInput as error:
        log.warning("%s: %s", source, error)
        return str(error)
    return ""


def _connect(poll: int) -> Any:
    """A client from the usual AWS settings."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        # every try is told and paced here, so botocore makes one
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=poll + CONNECT_SECONDS,
        )
        session = boto3.session.Session(botocore_session=botocore.session.get_session())
        return session.client("sqs", config=config)
    except (BotoCoreError, ValueError) as error:
        raise BadInput(
            f"expected AWS settings for a queue, found {type(error).__name__}; check "
            "AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE"
        ) from None


def _reason(error: Exception) -> str:
    """What went wrong, without what the message of an error may hold of URLs and keys."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)
