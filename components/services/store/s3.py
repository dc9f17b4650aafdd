"""Objects in a bucket: `S3Objects` on AWS S3, MinIO, Ceph radosgw and their like.

Endpoint, region and credentials are the usual AWS settings, which boto3 reads (AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, profiles, roles). Every object carries the sha256 of its bytes as
metadata and is checked against it when read; an object that somebody else put there without one is
taken as it is.
"""

import base64
import hashlib
import logging
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from components.services.store import s3_client
from components.services.store.objects import (
    MAX_KEY,
    Entry,
    Stored,
    removed_after,
    require_key,
    require_prefix,
    require_size,
)
from l2dm.errors import BadKey, BadStore, Conflict, Corrupt, NoSuchObject

ROUNDS = 8  # times that a request which met another, or whose answer tore, is sent anew
PATIENCE = 1.0  # seconds, the longest pause between two rounds
PART = 8 * 2**20  # bytes of a part; files above it travel in parts
PROBE = "probe/"  # scratch objects that find out what a store can do
SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_URL = 7 * 24 * 3600  # seconds, S3's limit

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignedPut:
    """An HTTP PUT that anybody may send until it expires.

    headers: to be sent exactly so, or the store refuses the signature. url: whoever holds it may
    write, so it is not in the repr.
    """

    url: str = field(repr=False)
    headers: dict[str, str]
    expires: int  # seconds


class S3Objects:
    """The objects of a bucket, or those under a prefix of it.

    part: bytes from which on a file travels in parts (S3 takes no part below 5 MiB). A process that
    dies within such an upload leaves parts that only the bucket's lifecycle rule removes.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, client: Any = None, part: int = PART
    ) -> None:
        """Raises BadStore when the AWS settings are no settings, BadKey for a prefix like `..`."""
        prefix = prefix.strip("/")
        if prefix:
            require_key(prefix)
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._client = s3_client.connect() if client is None else client
        self._where = f"s3://{bucket}/{self.prefix} at {s3_client.endpoint(self._client)}"
        self._part = part
        self._quoted: bool | None = None
        self._learning = threading.Lock()
        self._given = client is not None

    def __repr__(self) -> str:
        return f"S3Objects({self._where!r})"

    def read(self, key: str) -> Stored:
        """See Objects."""
        answer, data = self._fetched(key)
        self._require_digest(key, answer, hashlib.sha256(data).hexdigest())
        return Stored(data, answer["ETag"].strip('"'), _age(answer))

    def age(self, key: str) -> float:
        """See Objects."""
        return _age(self._head(key))

    def write(self, key: str, data: bytes) -> str:
        """See Objects."""
        with self._told(key):
            return self._put(key, data)

    def create(self, key: str, data: bytes) -> str:
        """See Objects."""
        for _ in range(ROUNDS):
            try:
                tag = self._conditionally(key, data, IfNoneMatch="*") or self._landed(key, data)
            except NoSuchObject:
                continue  # deleted since it stood in our way
            if tag is None:
                break
            return tag
        raise Conflict(f"expected no object {key!r} in {self._where}, found one; read it again")

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """See Objects."""
        self._name(key)
        match = f'"{tag}"' if self._quotes() else tag
        try:
            new = self._conditionally(key, data, IfMatch=match) or self._landed(key, data)
        except NoSuchObject:
            new = None
        if new is None:
            raise Conflict(
                f"expected object {key!r} in {self._where} as it was read, found other bytes or "
                "nothing; read it again"
            )
        return new

    def delete(self, key: str) -> None:
        """See Objects."""
        try:
            with self._told(key):
                self._client.delete_object(**self._at(key))
        except NoSuchObject:
            return

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """See Objects. Names that are no keys are passed over, with a warning."""
        require_prefix(prefix)
        start = {"StartAfter": self.prefix + after} if after else {}
        strange = []
        for page in self._pages(prefix, **start):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self.prefix)
                if _is_key(key):
                    written = item["LastModified"].timestamp()
                    yield Entry(key, item["Size"], written, item["ETag"])
                elif not key.endswith("/"):  # consoles put an empty object there for a folder
                    strange.append(key)
        if strange:
            _log.warning(
                "%d objects in %s have names that are no keys, such as %r; nobody reads them",
                len(strange),
                self._where,
                strange[0],
            )

    def folders(self, prefix: str) -> tuple[str, ...]:
        """See Objects."""
        require_prefix(prefix)
        whole = self.prefix + prefix
        names = [
            item["Prefix"].removeprefix(whole).removesuffix("/")
            for page in self._pages(prefix, Delimiter="/")
            for item in page.get("CommonPrefixes", ())
        ]
        return tuple(sorted(name for name in names if _is_key(prefix + name)))

    def upload(self, key: str, path: Path) -> None:
        """See Objects."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with self._told(key), self._transfers(self._part) as transfers:
                extra = {"Metadata": {"sha256": digest}}
                transfers.upload(file, self.bucket, self._name(key), extra).result()

    def download(self, key: str, to: Path, *, limit: int | None = None) -> None:
        """See Objects. `to` appears whole or not at all."""
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = to.with_name(f".{uuid.uuid4().hex}.draft")
        try:
            for _ in range(ROUNDS):
                head = self._head(key)
                require_size(key, head["ContentLength"], limit)
                if self._pulled(key, head, draft):
                    with open(draft, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    self._require_digest(key, head, digest)
                    os.replace(draft, to)
                    return
        finally:
            draft.unlink(missing_ok=True)
        raise Conflict(f"expected object {key!r} in {self._where} to stay, found it written anew")

    def hasty(self) -> "S3Objects":
        """See Objects: two tries of a few seconds, instead of minutes."""
        return self._hasty

    @cached_property
    def _hasty(self) -> "S3Objects":
        if self._given:
            return self
        return S3Objects(self.bucket, self.prefix, client=s3_client.connect(hasty=True))

    def presign(
        self,
        key: str,
        *,
        sha256: str,
        size: int,
        expires: int = 3600,
        new: bool = False,
        over: str = "",
    ) -> SignedPut:
        """A PUT for a client without credentials: these bytes, under this key, for so long.

        sha256, size: of the bytes, announced by the client and part of the signature. AWS and MinIO
        refuse other bytes at once; where a store does not look, `read` raises Corrupt. expires:
        seconds. new: only where nothing is under the key. over: only over the bytes of this tag.
        Who leaves the header of that out is refused by a store that verifies signatures. Raises
        BadStore for what cannot be signed.
        """
        if not 1 <= expires <= LONGEST_URL or not SHA256.fullmatch(sha256) or size < 0:
            raise BadStore(
                f"upload of {key!r}: expected 1 to {LONGEST_URL:,} seconds, a sha256 in "
                f"hexadecimal and a size, found {expires}, {sha256!r} and {size}"
            )
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        signed = {"Metadata": {"sha256": sha256}, "ContentLength": size, "ChecksumSHA256": checksum}
        match = f'"{over}"' if over and self._quotes() else over
        signed |= {"IfNoneMatch": "*"} if new else {"IfMatch": match} if over else {}
        with self._told(key):
            url = self._client.generate_presigned_url(
                "put_object", Params={**self._at(key), **signed}, ExpiresIn=expires
            )
        headers = {"x-amz-meta-sha256": sha256, "content-length": str(size)}
        headers |= {"if-none-match": "*"} if new else {"if-match": match} if over else {}
        return SignedPut(url, {**headers, "x-amz-checksum-sha256": checksum}, expires)

    def _name(self, key: str) -> str:
        require_key(key)
        name = self.prefix + key
        if len(name.encode()) > MAX_KEY:
            raise BadKey(f"object key {key!r}: expected at most {MAX_KEY} bytes with its prefix")
        return name

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._name(key)}

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        metadata = {"sha256": hashlib.sha256(data).hexdigest()}
        answer = self._client.put_object(**self._at(key), Body=data, Metadata=metadata, **condition)
        return str(answer["ETag"].strip('"'))

    def _conditionally(self, key: str, data: bytes, **condition: str) -> str | None:
        """The new tag, or None when the store says that the condition does not hold."""
        from botocore.exceptions import ClientError

        with self._told(key):
            for number in range(ROUNDS):
                try:
                    return self._put(key, data, **condition)
                except ClientError as error:
                    code, status = s3_client.code_of(error)
                    if status == 412 or (status == 404 and code != "NoSuchBucket"):
                        return None
                    if status != 409:  # two conditional writes met; neither was judged
                        raise
                _pause(number)
        return None

    def _landed(self, key: str, data: bytes) -> str | None:
        """The tag when these very bytes are there: the answer to our own write was lost."""
        if self._head(key)["ContentLength"] != len(data):
            return None
        answer, found = self._fetched(key)
        return str(answer["ETag"].strip('"')) if found == data else None

    def _quotes(self) -> bool:
        """Whether If-Match is understood with the quotes of an ETag (AWS) or without (radosgw)."""
        with self._learning:
            if self._quoted is None:
                self._quoted = self._learnt_quotes()
        return self._quoted

    def _learnt_quotes(self) -> bool:
        key = f"{PROBE}{uuid.uuid4().hex}"
        tag = self.write(key, b"before")
        with removed_after(self, key):
            for quoted in (True, False):
                match = f'"{tag}"' if quoted else tag
                if self._conditionally(key, b"after", IfMatch=match) or self._landed(key, b"after"):
                    return quoted
        raise BadStore(
            f"expected {self._where} to replace an object on condition, found it refusing the tag "
            f"that it gave itself; {s3_client.CONDITIONS}"
        )

    def _head(self, key: str) -> dict[str, Any]:
        with self._told(key):
            answer: dict[str, Any] = self._client.head_object(**self._at(key))
        return answer

    def _fetched(self, key: str) -> tuple[dict[str, Any], bytes]:
        from botocore import exceptions

        torn = (
            exceptions.ResponseStreamingError,
            exceptions.IncompleteReadError,
            exceptions.ReadTimeoutError,
        )
        with self._told(key):
            number = 0
            while True:  # botocore tries a request again until its answer begins, no later
                answer = self._client.get_object(**self._at(key))
                try:
                    return answer, answer["Body"].read()
                except torn:
                    number += 1
                    if number == ROUNDS:
                        raise
                _pause(number)

    def _pulled(self, key: str, head: dict[str, Any], draft: Path) -> bool:
        """Fetch the object of this head; False when it was written anew meanwhile."""
        from s3transfer.exceptions import S3DownloadFailedError

        if head["ContentLength"] == 0:
            draft.touch()
            return True
        try:
            with self._told(key), self._transfers(1) as transfers:
                transfers.download(
                    self.bucket, self._name(key), str(draft), subscribers=[_Pinned(head)]
                ).result()
        except (S3DownloadFailedError, NoSuchObject):
            return False
        return True

    @contextmanager
    def _transfers(self, threshold: int) -> Iterator[Any]:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        config = TransferConfig(
            multipart_threshold=threshold,
            multipart_chunksize=self._part,
            max_concurrency=4,
            preferred_transfer_client="classic",
        )
        with create_transfer_manager(self._client, config) as manager:
            yield manager

    def _pages(self, prefix: str, **more: str) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix, **more
        )
        with self._told(prefix):
            yield from pages

    def _require_digest(self, key: str, answer: dict[str, Any], found: str) -> None:
        announced = answer.get("Metadata", {}).get("sha256")
        if announced is not None and announced != found:
            raise Corrupt(
                f"object {key!r} in {self._where}: expected bytes with sha256 {announced}, found "
                f"{found}; write it again"
            )

    def _told(self, key: str) -> AbstractContextManager[None]:
        return s3_client.told(self._client, self.bucket, self._where, key)


class _Pinned:
    """Tells a transfer what was announced, so that it fetches these bytes or none."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = head

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._head["ContentLength"])
        future.meta.provide_object_etag(self._head["ETag"])


def _age(answer: dict[str, Any]) -> float:
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return max(0.0, float((now - answer["LastModified"]).total_seconds()))


def _is_key(name: str) -> bool:
    try:
        require_key(name)
    except BadKey:
        return False
    return True


def _pause(number: int) -> None:
    time.sleep(random.uniform(0, min(PATIENCE, 0.05 * 2**number)))
