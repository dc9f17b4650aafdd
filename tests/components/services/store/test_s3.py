"""What only a bucket can do wrong: errors of the network, foreign objects, lost answers, URLs."""

import hashlib
import io
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.services.store.open import probe
from components.services.store.s3 import ROUNDS, S3Objects
from l2dm.errors import BadKey, BadStore, Conflict, Corrupt
from tests.worlds.object_stores import Bucket, Meddler

MIB = 2**20


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def every_call(objects: S3Objects, folder: Path) -> Iterator[Callable[[], object]]:
    (folder / "file").write_bytes(b"data")
    yield lambda: objects.read("a")
    yield lambda: objects.write("a", b"1")
    yield lambda: objects.create("a", b"1")
    yield lambda: objects.replace("a", b"1", "0" * 32)
    yield lambda: objects.delete("a")
    yield lambda: list(objects.list(""))
    yield lambda: objects.folders("")
    yield lambda: objects.upload("a", folder / "file")
    yield lambda: objects.download("a", folder / "other")
    yield lambda: probe(objects)


def require_told(objects: S3Objects, folder: Path, expected: str, *secrets: str) -> None:
    """Every method says the same, and no secret."""
    for call in every_call(objects, folder):
        with pytest.raises(BadStore, match=expected) as caught:
            call()
        assert not [secret for secret in secrets if secret in str(caught.value)]
        assert caught.value.__suppress_context__
    assert sorted(path.name for path in folder.iterdir()) == ["file"]


def refused(status: int, code: str) -> Exception:
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


def test_a_missing_bucket_is_named(bucket: Bucket, tmp_path: Path) -> None:
    objects = S3Objects("no-such-bucket", "lines")
    expected = r"s3://no-such-bucket/lines/ at 127\.0\.0\.1:\d+ .*NoSuchBucket .*create the bucket"
    require_told(objects, tmp_path, expected, bucket.secret)


def test_a_wrong_secret_is_told_and_not_shown(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if bucket.kind == "moto":
        pytest.skip("moto checks no signatures; make test-integration asks radosgw")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    expected = r"to be open to us, found .*HTTP 403.*check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    require_told(bucket.objects(), tmp_path, expected, bucket.secret, "wrong-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    require_told(bucket.objects(), tmp_path, expected, bucket.secret, "wrong-secret")


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
        (301, "PermanentRedirect", "set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
        (501, "NotImplemented", "use a local folder, AWS S3, MinIO"),
        (500, "InternalError", "run it again, and look into the log of the store"),
    ],
)
def test_every_refusal_says_what_to_do(
    moto_bucket: Bucket, status: int, code: str, advice: str
) -> None:
    def refuse(_: Any, **__: Any) -> Any:
        raise refused(status, code)

    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": refuse}))
    with pytest.raises(BadStore, match=rf"found {code} \(HTTP {status}\); {advice}"):
        objects.create("a", b"1")


def test_no_credentials_are_told(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    expected = "expected credentials for s3://bucket-.*, found none that are whole; check AWS_ACC"
    require_told(moto_bucket.objects(), tmp_path, expected)


def test_an_endpoint_that_refuses_connections_is_told(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:hidden@127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    expected = rf"an answer from s3://.* at 127\.0\.0\.1:{port}, found EndpointConn.*; start the st"
    require_told(moto_bucket.objects(), tmp_path, expected, moto_bucket.secret, "hidden")


def test_many_threads_wait_for_a_store_that_starts_again(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    objects = moto_bucket.objects()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    with ThreadPoolExecutor(40) as pool:
        written = [pool.submit(objects.create, f"a/{number}", b"1") for number in range(40)]
        time.sleep(0.4)
        server.start()  # moto's servers of one process share their buckets
        assert all(one.result() for one in written)
    assert len(list(objects.list("a/"))) == 40
    server.stop()


def test_settings_say_how_often_a_request_is_sent(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.services.store.s3_client import ATTEMPTS, connect

    retries = connect().meta.config.retries
    assert retries == {"mode": "legacy", "total_max_attempts": ATTEMPTS}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert connect().meta.config.retries["total_max_attempts"] == 2
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")  # of a lease, which is over by then
    hasty = moto_bucket.objects().hasty()
    config = connect(hasty=True).meta.config
    assert (config.retries["total_max_attempts"], config.read_timeout) == (2, 5)
    assert hasty.create("lease", b"x") == moto_bucket.objects().read("lease").tag


def test_settings_that_are_none_are_told(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    with pytest.raises(BadStore, match=r"expected AWS settings .* found ValueError; check AWS_END"):
        moto_bucket.objects()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BadStore, match=r"expected AWS settings .* found ProfileNotFound"):
        moto_bucket.objects()


def test_bytes_changed_behind_our_back_are_not_handed_out(bucket: Bucket, tmp_path: Path) -> None:
    objects = bucket.objects()
    (tmp_path / "file").write_bytes(b"\1" * (6 * MIB))
    objects.write("small", b"data")
    objects.upload("large", tmp_path / "file")
    assert bucket.metadata("small") == {"sha256": sha(b"data")}
    bucket.put("small", b"dada", Metadata=bucket.metadata("small"))
    bucket.put("large", b"\2" * (6 * MIB), Metadata=bucket.metadata("large"))
    with pytest.raises(Corrupt, match=rf"'small' .*sha256 {sha(b'data')}, found {sha(b'dada')}; "):
        objects.read("small")
    with pytest.raises(Corrupt, match=r"'large' in s3://.*expected bytes with sha256 "):
        objects.download("large", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_another_tool_put_there_is_read_as_it_is(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("a", b"by hand")
    assert bucket.objects().read("a").data == b"by hand"
    bucket.objects().download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"by hand"


def test_a_large_file_travels_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(11 * MIB))
    objects = bucket.objects()
    objects.upload("large", tmp_path / "file")
    assert objects.read("large").tag.endswith("-3")  # an ETag counts its parts
    assert objects.replace("large", b"small", objects.read("large").tag)


def test_foreign_names_are_passed_over_and_told(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ok/a", "ok/../b", "ok/.hidden", "ok/\x01", "ok/folder/", "x\\y/z", "ok//c"):
        bucket.put(name, b"1")
    objects = bucket.objects()
    with caplog.at_level(logging.WARNING, "components.services.store.s3"):
        assert [entry.key for entry in objects.list("")] == ["ok/a"]
    (record,) = [one for one in caplog.records if one.name == "components.services.store.s3"]
    assert "5 objects in s3://" in record.getMessage()
    assert objects.folders("") == ("ok",)
    assert objects.folders("ok/") == ("folder",)


def test_a_prefix_counts_for_the_length_of_a_key(bucket: Bucket) -> None:
    with pytest.raises(BadKey, match="at most 1024 bytes with its prefix"):
        bucket.objects().write("a" * 1000, b"1")


def test_stores_of_one_bucket_do_not_see_each_other(moto_bucket: Bucket) -> None:
    one, other = (S3Objects(moto_bucket.name, prefix) for prefix in ("team", "team2/"))
    one.write("a/1", b"1")
    other.write("a/2", b"2")
    assert [entry.key for entry in one.list("")] == ["a/1"]
    assert [entry.key for entry in other.list("")] == ["a/2"]
    whole = S3Objects(moto_bucket.name)
    assert [entry.key for entry in whole.list("", after="team/a/1")] == ["team2/a/2"]
    assert whole.folders("") == ("team", "team2")


@pytest.mark.parametrize("ignored", ["IfNoneMatch", "IfMatch"])
def test_the_probe_refuses_a_store_that_ignores_conditions(
    moto_bucket: Bucket, ignored: str
) -> None:
    def careless(put: Callable[..., Any], **arguments: Any) -> Any:
        arguments.pop(ignored, None)
        return put(**arguments)

    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": careless}))
    what = {"IfNoneMatch": "create", "IfMatch": "replace"}[ignored]
    with pytest.raises(
        BadStore, match=rf"refuse the second of two writers \({what} on .*local folder, AWS S3, Min"
    ):
        probe(objects)
    assert list(objects.list("")) == []


def test_the_probe_refuses_a_store_that_never_replaces_on_condition(moto_bucket: Bucket) -> None:
    def deaf(put: Callable[..., Any], **arguments: Any) -> Any:
        if "IfMatch" in arguments:
            raise refused(412, "PreconditionFailed")
        return put(**arguments)

    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": deaf}))
    with pytest.raises(BadStore, match="refusing the tag that it gave itself; use a local folder"):
        probe(objects)
    assert list(objects.list("")) == []


def test_a_lost_answer_to_our_own_write_is_no_conflict(bucket: Bucket) -> None:
    def twice(put: Callable[..., Any], **arguments: Any) -> Any:
        put(**arguments)  # this answer never arrives, so botocore sends the request again
        return put(**arguments)

    objects = bucket.objects(Meddler(bucket.client, {"put_object": twice}))
    tag = objects.create("a", b"one")
    assert objects.read("a").tag == tag
    new = objects.replace("a", b"two", tag)
    assert (objects.read("a").tag, objects.read("a").data) == (new, b"two")
    with pytest.raises(Conflict):
        objects.replace("a", b"three", tag)


def test_two_conditional_writes_that_met_are_sent_again(moto_bucket: Bucket) -> None:
    met = []

    def meet(put: Callable[..., Any], **arguments: Any) -> Any:
        met.append(arguments)
        if len(met) < 3:
            raise refused(409, "ConditionalRequestConflict")
        return put(**arguments)

    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": meet}))
    objects.create("a", b"1")
    assert (objects.read("a").data, len(met)) == (b"1", 3)


def test_writes_that_always_meet_end_in_conflict(
    moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def meet(_: Any, **__: Any) -> Any:
        raise refused(409, "ConditionalRequestConflict")

    moto_bucket.put("a", b"other")
    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": meet}))
    with pytest.raises(Conflict, match="expected no object 'a' in"):
        objects.create("a", b"1")


def test_a_create_goes_on_when_what_stood_in_its_way_is_gone(moto_bucket: Bucket) -> None:
    def deleted(put: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return put(**arguments)
        finally:
            moto_bucket.client.delete_object(Bucket=arguments["Bucket"], Key=other)

    other = f"{moto_bucket.prefix}/a"
    moto_bucket.put("a", b"other")
    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"put_object": deleted}))
    assert objects.create("a", b"1")


@pytest.mark.parametrize("times", [2, ROUNDS])
def test_a_body_that_tears_is_fetched_again(
    moto_bucket: Bucket, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.response import StreamingBody

    monkeypatch.setattr(time, "sleep", lambda _: None)
    torn = []

    def tear(get: Callable[..., Any], **arguments: Any) -> Any:
        answer = get(**arguments)
        if len(torn) < times:
            torn.append(1)
            answer["Body"] = StreamingBody(io.BytesIO(b"da"), 4)
        return answer

    objects = moto_bucket.objects(Meddler(moto_bucket.client, {"get_object": tear}))
    objects.write("a", b"data")
    if times < ROUNDS:
        assert objects.read("a").data == b"data"
    else:
        with pytest.raises(BadStore, match=r"an answer from .*, found IncompleteReadError"):
            objects.read("a")


@pytest.mark.parametrize("times", [1, 99])
def test_a_download_is_of_one_version(
    bucket: Bucket, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []

    def overtaken(head: Callable[..., Any], **arguments: Any) -> Any:
        answer = head(**arguments)
        if len(writes) < times:
            writes.append(1)
            bucket.objects().write("a", b"%d" % len(writes) * 7 * MIB)
        return answer

    objects = bucket.objects(Meddler(bucket.client, {"head_object": overtaken}))
    objects.write("a", b"0")
    if times == 1:
        objects.download("a", tmp_path / "a", limit=7 * MIB)
        assert (tmp_path / "a").read_bytes() == b"1" * 7 * MIB
    else:
        with pytest.raises(Conflict, match=r"'a' in .* to stay, found it written anew"):
            objects.download("a", tmp_path / "a")
        assert list(tmp_path.iterdir()) == []


def test_boto3_is_loaded_by_the_constructor_only() -> None:
    code = (
        "import sys; from components.services.store import open, s3; "
        "sys.exit(any(name.split('.')[0] in ('boto3', 'botocore') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
