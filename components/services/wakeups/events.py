"""What a message about objects says: which lines of our inbox it concerns, or why it is no event.

An event decides nothing. It may come twice, late, out of order, forged or never: all it is good for
is to look at a line sooner than the periodic scan would.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from components.services.store.objects import require_key
from l2dm.errors import BadInput, BadKey
from l2dm.files.concept_json import FILE, SLUG

INBOX = "inbox"
MAX_BODY = 2**20  # bytes; SQS carries no more
RAW = "ceph:"  # event sources that leave keys as they are; all others write them URL-encoded
READS = "ObjectAccessed"  # our own reads would wake us for ever

BucketKey = tuple[str, str]


@dataclass(frozen=True)
class Inbox:
    """Where uploads lie: a bucket, and the prefix of everything that is ours in it."""

    bucket: str
    prefix: str = ""

    def line(self, bucket: str, key: str) -> str | None:
        """The line whose upload this object commits; None for any other object."""
        prefix = f"{self.prefix.strip('/')}/" if self.prefix.strip("/") else ""
        if bucket != self.bucket or not key.startswith(prefix):
            return None
        inside = key.removeprefix(prefix)
        try:
            require_key(inside)
        except BadKey:
            return None
        match inside.split("/"):
            case [folder, line, _, name] if (folder, name) == (INBOX, FILE):
                return line if SLUG.fullmatch(line) else None
        return None


def lines_of(body: bytes | str, inbox: Inbox) -> frozenset[str]:
    """Names of the lines that a message concerns; they need not exist.

    Understood are notifications of S3, MinIO and radosgw, S3's test event (which concerns none),
    EventBridge's "Object Created" and their like, and each of these inside an envelope of SNS.
    Raises BadInput with the reason for everything else.
    """
    data = _parsed(body)
    match data:
        case {"Type": "Notification", "Message": str(message)}:
            data = _parsed(message)
    found = (inbox.line(bucket, key) for bucket, key in _objects(data))
    return frozenset(line for line in found if line is not None)


def _parsed(body: bytes | str) -> Any:
    if len(body) > MAX_BODY:
        raise BadInput(f"expected an event of at most {MAX_BODY:,} bytes, found {len(body):,}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: brackets, many thousands deep
        raise BadInput(f"expected an event in JSON, found {body[:60]!r}") from None


def _objects(data: Any) -> Sequence[BucketKey]:
    match data:
        case {"Event": "s3:TestEvent"}:
            return ()
        case {"Records": [*records]}:
            return _recorded(records)
        case {"detail": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            return ((bucket, key),)  # EventBridge leaves keys as they are
        case {"EventName": str(name), "Key": str(path)}:  # MinIO's, without its Records
            bucket, _, key = path.partition("/")
            return () if _is_read(name) else ((bucket, key),)
        case {"Type": "SubscriptionConfirmation"}:
            raise BadInput(
                "expected an event, found SNS asking to confirm a subscription, which is not done "
                "unasked; subscribe a queue to the topic instead"
            )
    raise BadInput(f"expected an event about an object, found {_shape(data)}")


def _recorded(records: Sequence[Any]) -> Sequence[BucketKey]:
    """Raises BadInput when not one of the records is about an object."""
    understood = [named for record in records for named in _record(record)]
    if records and not understood:
        raise BadInput(f"expected records about objects, found {_shape(records[0])}")
    return [named for named, read in understood if not read]


def _record(record: Any) -> Iterator[tuple[BucketKey, bool]]:
    match record:
        case {"s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            raw = str(record.get("eventSource", "")).startswith(RAW)
            name = str(record.get("eventName", ""))
            yield (bucket, key if raw else unquote_plus(key)), _is_read(name)


def _is_read(event: str) -> bool:
    return event.removeprefix("s3:").startswith(READS)


def _shape(data: Any) -> str:
    """What JSON holds, in few words whatever its size."""
    if not isinstance(data, dict):
        return f"a {type(data).__name__}"
    names = ", ".join(repr(name[:40]) for name in sorted(data)[:6])
    return (
        f"an object with {names}{', ...' if len(data) > 6 else ''}" if data else "an empty object"
    )
