"""Uploads by clients without credentials: what lands is what was announced."""

import hashlib
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from components.services.store.s3 import SignedPut
from l2dm.errors import BadKey, BadStore, Corrupt, NoSuchObject
from tests.worlds.object_stores import Bucket

MIB = 2**20


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send(upload: SignedPut, data: bytes, **other: str) -> int:
    """What a client without credentials does; the HTTP status."""
    headers = upload.headers | {"content-type": ""} | other
    request = urllib.request.Request(upload.url, data, headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_presigned_upload_lands_as_announced(bucket: Bucket, tmp_path: Path) -> None:
    objects, data = bucket.objects(), os.urandom(3000)
    upload = objects.presign("inbox/größe 1.png", sha256=sha(data), size=len(data), expires=60)
    assert bucket.secret not in upload.url and upload.url not in repr(upload)
    signed = "content-length;host;x-amz-checksum-sha256;x-amz-meta-sha256"
    assert f"X-Amz-SignedHeaders={signed}" in urllib.parse.unquote(upload.url)
    assert send(upload, data) == 200
    assert objects.read("inbox/größe 1.png").data == data
    objects.download("inbox/größe 1.png", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


def test_other_bytes_than_announced_are_refused_or_found_out(bucket: Bucket) -> None:
    objects, data = bucket.objects(), b"announced"
    upload = objects.presign("inbox/1.png", sha256=sha(data), size=len(data))
    if send(upload, b"other one") == 200:  # a store that does not look at checksums
        with pytest.raises(Corrupt, match=sha(data)):
            objects.read("inbox/1.png")
    else:
        with pytest.raises(NoSuchObject):
            objects.read("inbox/1.png")


def test_a_presigned_upload_is_bound_to_its_announcement(bucket: Bucket) -> None:
    if bucket.kind == "moto":
        pytest.skip("moto checks no signatures; make test-integration asks radosgw")
    objects, data = bucket.objects(), b"announced"
    upload = objects.presign("inbox/1.png", sha256=sha(data), size=len(data))
    longer = {"content-length": str(len(data) + 1)}
    assert send(upload, data + b"!", **longer) == 403
    assert send(upload, data, **{"x-amz-meta-sha256": sha(b"x")}) == 403
    elsewhere = SignedPut(upload.url.replace("1.png", "2.png"), upload.headers, 60)
    assert send(elsewhere, data) == 403
    brief = objects.presign("inbox/1.png", sha256=sha(data), size=len(data), expires=1)
    time.sleep(2.1)
    assert send(brief, data) == 403
    assert list(objects.list("inbox/")) == []


def test_a_new_object_is_sent_once_and_goes_over_nothing(bucket: Bucket) -> None:
    objects, data, other = bucket.objects(), b"first", b"other"
    first, second = (
        objects.presign("inbox/c.json", sha256=sha(one), size=len(one), new=True)
        for one in (data, other)
    )
    assert "if-none-match" in urllib.parse.unquote(first.url)
    assert send(first, data) == 200
    assert send(second, other) == 412
    assert send(first, data) == 412
    assert objects.read("inbox/c.json").data == data


def test_who_leaves_the_condition_out_is_refused_where_signatures_are_verified(
    bucket: Bucket,
) -> None:
    """moto verifies none, and a store like it lets the sender go over what is there."""
    objects, data = bucket.objects(), b"other"
    objects.write("inbox/c.json", b"first")
    upload = objects.presign("inbox/c.json", sha256=sha(data), size=len(data), new=True)
    headers = {name: value for name, value in upload.headers.items() if name != "if-none-match"}
    status = send(SignedPut(upload.url, headers, 60), data)
    if bucket.kind == "moto":
        assert status == 200
    else:
        assert status == 403
        assert objects.read("inbox/c.json").data == b"first"


def test_what_cannot_be_signed_is_refused(moto_bucket: Bucket) -> None:
    objects = moto_bucket.objects()
    for sha256, size, expires in (("f" * 63, 1, 60), ("G" * 64, 1, 60), ("f" * 64, -1, 60)):
        with pytest.raises(BadStore, match="expected 1 to 604,800 seconds, a sha256 in hexadeci"):
            objects.presign("a", sha256=sha256, size=size, expires=expires)
    for expires in (0, 604_801):
        with pytest.raises(BadStore, match=f"found {expires}, "):
            objects.presign("a", sha256="f" * 64, size=1, expires=expires)
    with pytest.raises(BadKey):
        objects.presign("../a", sha256="f" * 64, size=1)
