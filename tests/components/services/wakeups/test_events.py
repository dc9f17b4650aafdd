"""Which lines a message concerns, in every shape that stores and their couriers give it.

The shapes of radosgw 16 and moto were captured from them; S3's, MinIO's and EventBridge's are those
of their documentation and source.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from components.services.wakeups.events import MAX_BODY, Inbox, lines_of
from l2dm.errors import BadInput
from l2dm.files.concept_json import SLUG

INBOX = Inbox("team-models", "my team/a+b/größe%2F/")
PREFIX = "my team/a+b/größe%2F/"
Shape = Callable[[str, str], dict[str, Any]]  # bucket and key to a message


def s3(bucket: str, key: str, event: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "eu-central-1",
                "eventTime": "2026-11-21T14:31:41.497Z",
                "eventName": event,
                "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {
                    "x-amz-request-id": "C3D13FE58DE4C810",
                    "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMU",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "wake",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {
                        "key": quote(key).replace("%20", "+"),
                        "size": 2,
                        "eTag": "99914b932bd37a50b983c5e7c90ae93b",
                        "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
                        "sequencer": "0055AED6DCD90281E5",
                    },
                },
            }
        ]
    }


def moto(bucket: str, key: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "us-east-1",
                "eventTime": "2026-11-21T14:31:41.497Z",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "eGKKZeHcn2dWGDaVp3eyZGF3D2ymJ0SchNLrilGnJEcydSExVa",
                    "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
                    "object": {
                        "key": quote_plus(key),
                        "size": 2,
                        "eTag": "99914b932bd37a50b983c5e7c90ae93b",
                    },
                },
            }
        ]
    }


def minio(bucket: str, key: str, event: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    return {
        "EventName": event,
        "Key": f"{bucket}/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": "2026-11-21T14:34:32Z",
                "eventName": event,
                "userIdentity": {"principalId": "minio"},
                "requestParameters": {
                    "accessKey": "minio",
                    "region": "",
                    "sourceIPAddress": "172.18.0.1",
                },
                "responseElements": {
                    "x-amz-request-id": "159FB6B233B08AF0",
                    "x-minio-deployment-id": "cd7a0eb7-a1f9-48d9-b21a-56366d75cfdd",
                    "x-minio-origin-endpoint": "http://172.18.0.6:9000",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "minio"},
                        "arn": f"arn:aws:s3:::{bucket}",
                    },
                    "object": {
                        "key": quote_plus(key),
                        "size": 2,
                        "eTag": "99914b932bd37a50b983c5e7c90ae93b",
                        "contentType": "application/json",
                        "userMetadata": {"content-type": "application/json"},
                        "sequencer": "159FB6B233B08AF0",
                    },
                },
                "source": {"host": "172.18.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
            }
        ],
    }


def minio_without_records(bucket: str, key: str) -> dict[str, Any]:
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"{bucket}/{key}"}


def radosgw(bucket: str, key: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventVersion": "2.2",
                "eventSource": "ceph:s3",
                "awsRegion": "",
                "eventTime": "2026-11-21T14:24:20.043918Z",
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "l2dm"},
                "requestParameters": {"sourceIPAddress": ""},
                "responseElements": {
                    "x-amz-request-id": "6e604be5-af26-47c8-ab71.4103.13876246280743267326",
                    "x-amz-id-2": "1007-default-default",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "wake",
                    "bucket": {
                        "name": bucket,
                        "ownerIdentity": {"principalId": "l2dm"},
                        "arn": f"arn:aws:s3:::{bucket}",
                        "id": "6e604be5-af26-47c8-ab71-45a97644d313.4111.2",
                    },
                    "object": {
                        "key": key,
                        "size": 2,
                        "eTag": "99914b932bd37a50b983c5e7c90ae93b",
                        "versionId": "",
                        "sequencer": "94A9016B3C1CB002",
                        "metadata": [{"key": "x-amz-date", "val": "20261121T142420Z"}],
                        "tags": [],
                    },
                },
                "eventId": "1795271060.045095.99914b932bd37a50b983c5e7c90ae93b",
                "opaqueData": "opaque",
            }
        ]
    }


def bridge(bucket: str, key: str) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-11-21T14:31:42Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {
                "key": key,
                "size": 2,
                "etag": "99914b932bd37a50b983c5e7c90ae93b",
                "version-id": "uhggCJ2_B6gU2JaXWXebnXFDstO0ID6G",
                "sequencer": "617f08299329d189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "1.2.3.4",
            "reason": "PutObject",
        },
    }


def in_sns(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "776bba1b-8f24-4c82-8e12-72326975b99c",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2026-11-21T14:31:41.916Z",
        "SignatureVersion": "2",
        "Signature": "huGLZSWC7VNrfAmAiaVG0WbnOkkC5aAujxgZKvOs3x0sk==",
        "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-56.pem",
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
    }


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-11-21T14:31:41.491Z",
    "Bucket": "team-models",
    "RequestId": "7A87C25E0323B2F4",
    "HostId": "fB3Zxxxx",
}
SHAPES = (s3, moto, minio, minio_without_records, radosgw, bridge)
every_shape = pytest.mark.parametrize("shape", SHAPES)


def heard(message: Any, inbox: Inbox = INBOX) -> Sequence[str]:
    return sorted(lines_of(json.dumps(message), inbox))


@every_shape
@pytest.mark.parametrize("concept", ["rex", "rex the dog", "größe+1", "50%25", "犬", "a&b=c?"])
def test_every_shape_names_the_line(shape: Shape, concept: str) -> None:
    message = shape("team-models", f"{PREFIX}inbox/pets/{concept}/concept.json")
    assert heard(message) == ["pets"]
    assert heard(in_sns(message)) == ["pets"]
    assert lines_of(json.dumps(message, ensure_ascii=False).encode(), INBOX) == {"pets"}


@every_shape
@pytest.mark.parametrize(
    "key",
    [
        "inbox/pets/rex/concept.json",  # without the prefix
        f"{PREFIX}inbox/pets/rex/00.png",
        f"{PREFIX}inbox/pets/rex/concept.json.part",
        f"{PREFIX}inbox/pets/rex/more/concept.json",
        f"{PREFIX}inbox/pets/concept.json",
        f"{PREFIX}records/pets/rex/concept.json",
        f"{PREFIX}x/inbox/pets/rex/concept.json",
        f"{PREFIX}inbox//rex/concept.json",
        f"{PREFIX}inbox/pets//concept.json",
        f"{PREFIX}inbox/../rex/concept.json",
        f"{PREFIX}inbox/pets/../concept.json",
        f"{PREFIX}inbox/pets/.draft/concept.json",
        f"{PREFIX}inbox/pets/re\nx/concept.json",
        f"{PREFIX}inbox/pets\n/rex/concept.json",
        f"{PREFIX}inbox/pe\x00ts/rex/concept.json",
        f"{PREFIX}inbox/pets/a\\b/concept.json",
        f"{PREFIX}inbox/My Pets/rex/concept.json",
        f"{PREFIX}inbox/größe/rex/concept.json",
        f"{PREFIX}inbox/-pets/rex/concept.json",
        f"{PREFIX}inbox/{'p' * 41}/rex/concept.json",
        f"{PREFIX}inbox/pets/{'r' * 1024}/concept.json",
        f"{PREFIX}inbox%2Fpets%2Frex%2Fconcept.json",  # an object really called so
        "",
    ],
)
def test_other_objects_concern_no_line(shape: Shape, key: str) -> None:
    assert heard(shape("team-models", key)) == []


@every_shape
def test_another_bucket_concerns_no_line(shape: Shape) -> None:
    key = f"{PREFIX}inbox/pets/rex/concept.json"
    assert heard(shape("team-models-2", key)) == heard(shape("", key)) == []


@pytest.mark.parametrize("prefix", ["", "/"])
def test_an_inbox_without_a_prefix(prefix: str) -> None:
    whole = Inbox("team-models", prefix)
    assert heard(s3("team-models", "inbox/pets/rex/concept.json"), whole) == ["pets"]
    assert heard(s3("team-models", "lines/inbox/pets/rex/concept.json"), whole) == []


def test_a_prefix_is_taken_as_the_store_takes_it() -> None:
    for prefix in ("lines", "lines/", "/lines/"):
        lines = Inbox("team-models", prefix)
        assert heard(s3("team-models", "lines/inbox/pets/rex/concept.json"), lines) == ["pets"]
        assert heard(s3("team-models", "lines2/inbox/pets/rex/concept.json"), lines) == []


def test_the_rule_for_lines_is_the_projects() -> None:
    for line, found in (("a" * 40, ["a" * 40]), ("a" * 41, []), ("Pets", []), ("3po", [])):
        assert bool(SLUG.fullmatch(line)) == bool(found)
        assert heard(s3("team-models", f"{PREFIX}inbox/{line}/rex/concept.json")) == found


def test_the_test_event_concerns_no_line() -> None:
    assert heard(TEST_EVENT) == heard(in_sns(TEST_EVENT)) == []


def test_many_records_doubled_and_in_any_order_name_the_same_lines() -> None:
    names = [f"line{number}" for number in range(50)]
    records = [
        shape("team-models", f"{PREFIX}inbox/{name}/rex/concept.json")["Records"][0]
        for name in names
        for shape in (s3, moto, minio, radosgw)
    ]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert heard({"Records": records * 2}) == sorted(names)


def test_a_removed_object_is_a_reason_too_but_one_that_was_read_is_none() -> None:
    """The dispatcher reads concept.json: events of that would wake it again, for ever."""
    key = f"{PREFIX}inbox/pets/rex/concept.json"
    assert heard(s3("team-models", key, "ObjectRemoved:Delete")) == ["pets"]
    read = minio("team-models", key, "s3:ObjectAccessed:Get")
    assert heard(read) == heard({name: read[name] for name in ("EventName", "Key")}) == []


def test_a_record_that_cannot_be_read_does_not_hide_the_others() -> None:
    good = s3("team-models", f"{PREFIX}inbox/pets/rex/concept.json")["Records"]
    assert heard({"Records": [{}, None, *good, {"s3": {"object": {"key": 3}}}]}) == ["pets"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "an event in JSON, found b''"),
        (b"hello", "an event in JSON, found b'hello'"),
        (b"\xff\xfe\x00\xd8", "an event in JSON"),
        (b'{"Records": [', "an event in JSON"),
        (b"[" * 100_000, "an event in JSON"),
        (b"1" * 10_000, "an event in JSON"),  # Python reads no integer of so many digits
        (b"null", "about an object, found a NoneType"),
        (b'"text"', "about an object, found a str"),
        (b"[]", "about an object, found a list"),
        (b"{}", "about an object, found an empty object"),
        (b'{"b": 1, "a": 2}', "found an object with 'a', 'b'$"),
        (json.dumps({"n" * 99 + str(i): 0 for i in range(9)}).encode(), "'n{40}', .*, [.]{3}$"),
        (b'{"Records": {}}', "found an object with 'Records'"),
        (b'{"Records": ["x"]}', "records about objects, found a str"),
        (b'{"Records": [{"EventSource": "aws:sns", "Sns": {}}]}', "'EventSource', 'Sns'"),
        (b'{"detail": {"bucket": "b", "object": {"key": "k"}}}', "an object with 'detail'"),
        (b'{"EventName": "s3:ObjectCreated:Put", "Key": null}', "with 'EventName', 'Key'"),
        (json.dumps(in_sns(in_sns(TEST_EVENT))).encode(), "about an object, found .*'Message'"),
        (b'{"Type": "Notification", "Message": "hello"}', "an event in JSON, found 'hello'"),
        (b'{"Type": "Notification", "Message": {}}', "with 'Message', 'Type'"),
        (b" " * MAX_BODY + b"1", "at most 1,048,576 bytes, found 1,048,577"),
    ],
)
def test_what_is_no_event_is_told(body: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        lines_of(body, INBOX)
    assert len(str(caught.value)) < 400


def test_a_subscription_is_not_confirmed_unasked_and_its_token_not_told() -> None:
    asked = {
        "Type": "SubscriptionConfirmation",
        "Token": "2336412f37",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:uploads",
        "Message": "You have chosen to subscribe to the topic",
        "SubscribeURL": "https://sns.us-east-1.amazonaws.com/?Token=2336412f37",
    }
    with pytest.raises(BadInput, match=r"SNS asking to confirm .* subscribe a queue") as caught:
        lines_of(json.dumps(asked), INBOX)
    assert "2336412f37" not in str(caught.value)


def test_half_letters_are_no_name() -> None:
    body = json.dumps(bridge("team-models", f"{PREFIX}inbox/pets/\ud800/concept.json"))
    assert lines_of(body, INBOX) == frozenset()


def test_random_damage_is_told_or_understood() -> None:
    """Whatever bytes come, there is an answer: a set of lines or BadInput."""
    whole = json.dumps(s3("team-models", f"{PREFIX}inbox/pets/rex/concept.json")).encode()
    draw = random.Random(7)
    told = 0
    lines: set[str] = set()
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            lines |= lines_of(bytes(damaged[: draw.randint(1, 2 * len(damaged))]), INBOX)
        except BadInput:
            told += 1
    assert 0 < told < 2000 and "pets" in lines
    assert all(SLUG.fullmatch(line) for line in lines)
