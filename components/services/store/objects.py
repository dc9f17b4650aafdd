"""An object store: keys to bytes, with the two conditional writes that leases and records need.

One protocol, two implementations that pass one contract suite: `FolderObjects` (`folder.py`) and
`S3Objects` (`s3.py`). A key is slash-separated text as S3 has it; a tag names the bytes of one
write and is what `replace` must present.
"""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from l2dm.errors import BadKey, L2dmError, TooLarge

MAX_KEY = 1024  # bytes of UTF-8, S3's limit


@dataclass(frozen=True)
class Entry:
    """One object of a listing: bytes, seconds since 1970 at which it was written.

    mark: another one after every write; means nothing but that.
    """

    key: str
    size: int
    modified: float
    mark: str = ""


@dataclass(frozen=True)
class Stored:
    """An object that was read, and the tag of these bytes.

    age: seconds since they were written by the store's own clock, so that two readers whose clocks
    disagree see the same lease expire.
    """

    data: bytes
    tag: str
    age: float = 0.0


class Objects(Protocol):
    """What this project asks of an object store. Every method raises BadKey for a key like `..`.

    A create or replace whose bytes are there already succeeds: it may be the retry of a request
    whose answer was lost. Bytes that must have one winner therefore carry a unique name.
    """

    def read(self, key: str) -> Stored:
        """Raises NoSuchObject, and Corrupt when the bytes are not those that were written."""
        ...

    def age(self, key: str) -> float:
        """Seconds since it was written, by the store's clock. Raises NoSuchObject."""
        ...

    def write(self, key: str, data: bytes) -> str:
        """Write whatever is there; returns the tag."""
        ...

    def create(self, key: str, data: bytes) -> str:
        """Write only if nothing is there; returns the tag. Raises Conflict."""
        ...

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write only over the bytes with this tag; returns the new tag. Raises Conflict."""
        ...

    def delete(self, key: str) -> None:
        """No error when it is not there."""
        ...

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Objects whose key begins with `prefix` and is greater than `after`, in key order."""
        ...

    def folders(self, prefix: str) -> tuple[str, ...]:
        """The next path segments below a prefix that ends with a slash (or is empty), sorted."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size; the object appears whole or not at all."""
        ...

    def download(self, key: str, to: Path, *, limit: int | None = None) -> None:
        """Fetch into a file. Raises TooLarge before a byte moves, NoSuchObject, Corrupt."""
        ...

    def hasty(self) -> "Objects":
        """The same objects for whoever would rather be told soon that the store does not answer."""
        ...


@contextmanager
def removed_after(objects: Objects, *keys: str) -> Iterator[None]:
    """Objects that are there for this block only; an error of the block is the one that counts."""
    try:
        yield
    except BaseException:
        for key in keys:
            with suppress(L2dmError, OSError):
                objects.delete(key)
        raise
    for key in keys:
        objects.delete(key)


def require_key(key: str) -> None:
    """Refuse what could leave the store, or be read as something else. Raises BadKey."""
    problem = _key_problem(key)
    if problem:
        raise BadKey(
            f"object key {key!r}: expected names with / between them, found {problem}; rename it"
        )


def require_prefix(prefix: str) -> None:
    """A prefix is the beginning of a key. Raises BadKey."""
    whole = prefix + "x" if prefix.endswith("/") or not prefix else prefix
    require_key(whole)


def require_size(key: str, size: int, limit: int | None) -> None:
    """Raises TooLarge when an object holds more bytes than the reader takes."""
    if limit is not None and size > limit:
        raise TooLarge(
            f"object {key!r}: expected at most {limit:,} bytes, found {size:,}; "
            "upload a smaller file"
        )


def missing(key: str, where: str) -> str:
    """The sentence for an object that is not there."""
    return f"expected object {key!r} in {where}, found nothing"


def _key_problem(key: str) -> str:
    if not key or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY:
        return f"{len(key)} characters"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in key):
        return "a control character or half a letter"
    if "\\" in key:
        return "a backslash"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return f"the part {part!r}"
        if part.startswith("."):
            return f"the hidden part {part!r}"
    return ""
