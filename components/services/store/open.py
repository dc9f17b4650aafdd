"""Which object store a place is, and whether it keeps what leases and records rest on."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects, removed_after
from components.services.store.s3 import PROBE, S3Objects
from components.services.store.s3_client import CONDITIONS
from l2dm import redaction
from l2dm.errors import BadStore, Conflict

SCHEME = "s3://"


def open_objects(place: str) -> Objects:
    """The objects of a folder, or of `s3://bucket/prefix`. Raises BadStore for another scheme.

    Every process begins here, so its secrets are known to messages from now on.
    """
    redaction.learn(os.environ)
    if place.startswith(SCHEME):
        bucket, _, prefix = place.removeprefix(SCHEME).partition("/")
        if bucket:
            return S3Objects(bucket, prefix)
    if "://" in place or not place:
        raise BadStore(f"expected a folder or s3://bucket/prefix, found {place!r}; name one")
    return FolderObjects(Path(place).expanduser().resolve())


def probe(objects: Objects) -> None:
    """See with scratch objects that the second of two conditional writers is refused.

    Raises BadStore where it is not, and where the store is missing or closed to us.
    """
    create, replace = (f"{PROBE}{uuid.uuid4().hex}" for _ in range(2))
    objects.create(create, b"one")
    tag = objects.write(replace, b"one")
    with removed_after(objects, create, replace):
        _require_refused(objects, "create", lambda: objects.create(create, b"two"))
        objects.replace(replace, b"two", tag)
        _require_refused(objects, "replace", lambda: objects.replace(replace, b"three", tag))


def _require_refused(objects: Objects, what: str, second: Callable[[], str]) -> None:
    try:
        second()
    except Conflict:
        return
    raise BadStore(
        f"expected {objects!r} to refuse the second of two writers ({what} on condition), found "
        f"that it let both through; {CONDITIONS}"
    )
