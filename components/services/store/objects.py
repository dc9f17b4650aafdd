"""An object store: keys to bytes, with the two conditional writes that leases and records need.

One protocol, two implementations that pass one contract suite: `FolderObjects` here and `S3Objects`
(`s3.py`). A key is slash-separated text as S3 has it; a tag names the bytes of one write and is
what `replace` must present.
"""

import fcntl
import hashlib
import io
import os
import shutil
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from l2dm.errors import BadKey, Conflict, NoSuchObject, TooLarge

MAX_KEY = 1024  # bytes of UTF-8, S3's limit
MAX_NAME = 255  # bytes of one part of it that a file system takes
LOCKS = 64  # lock files of a folder store; keys share them by hash


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


class FolderObjects:
    """Objects as files of one folder: the twin without a server.

    Conditional writes hold a kernel lock (dropped when its holder dies) and rename a flushed file
    into place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hidden = folder / ".store"

    def read(self, key: str) -> Stored:
        """See Objects."""
        try:
            with open(self._path(key), "rb") as file:
                data, written = file.read(), os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoSuchObject(missing(key, str(self.folder))) from None
        return Stored(data, _tag(data), max(0.0, self._now() - written))

    def age(self, key: str) -> float:
        """See Objects."""
        try:
            written = self._path(key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchObject(missing(key, str(self.folder))) from None
        return max(0.0, self._now() - written)

    def write(self, key: str, data: bytes) -> str:
        """See Objects."""
        with self._locked(key):
            return self._put(key, data)

    def create(self, key: str, data: bytes) -> str:
        """See Objects."""
        with self._locked(key):
            found = self._found(key)
            if found is None:
                return self._put(key, data)
            if found.data == data:
                return found.tag
            raise Conflict(f"expected no object {key!r} in {self.folder}, found one; read it again")

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """See Objects."""
        with self._locked(key):
            found = self._found(key)
            if found is not None and found.tag == tag:
                return self._put(key, data)
            if found is not None and found.data == data:
                return found.tag
            raise Conflict(
                f"expected object {key!r} in {self.folder} as it was read, found "
                f"{'other bytes' if found else 'nothing'}; read it again"
            )

    def delete(self, key: str) -> None:
        """See Objects."""
        with self._locked(key):
            path = self._path(key)
            try:
                path.unlink(missing_ok=True)
            except (IsADirectoryError, NotADirectoryError, PermissionError):
                return  # a folder is no object
            self._prune(path.parent)

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """See Objects."""
        require_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        found = self._below(f"{folder}/" if folder else "", prefix, after)
        # code points sort as S3's UTF-8 bytes do
        yield from sorted(found, key=lambda entry: entry.key)

    def folders(self, prefix: str) -> tuple[str, ...]:
        """See Objects."""
        require_prefix(prefix)
        try:
            with os.scandir(self.folder / prefix) as found:
                names = [one.name for one in found if one.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(sorted(name for name in names if _is_object(name)))

    def upload(self, key: str, path: Path) -> None:
        """See Objects."""
        with open(path, "rb") as source:
            draft = self._drafted(key, source)
        try:
            with self._locked(key):
                os.replace(draft, self._path(key))
        finally:
            draft.unlink(missing_ok=True)

    def download(self, key: str, to: Path, *, limit: int | None = None) -> None:
        """See Objects."""
        path = self._path(key)
        if not path.is_file():
            raise NoSuchObject(missing(key, str(self.folder)))
        require_size(key, path.stat().st_size, limit)
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = to.with_name(f".{uuid.uuid4().hex}.draft")
        try:
            shutil.copyfile(path, draft)
            os.replace(draft, to)
        finally:
            draft.unlink(missing_ok=True)

    def hasty(self) -> "FolderObjects":
        """See Objects."""
        return self

    def _below(self, folder: str, prefix: str, after: str) -> Iterator[Entry]:
        """Objects in a folder and the folders in it; passes over what is deleted meanwhile.

        Plain strings and one look per file: a line's folders hold thousands.
        """
        try:
            with os.scandir(self.folder / folder) as listed:
                inside = list(listed)
        except (FileNotFoundError, NotADirectoryError):
            return
        for one in inside:
            key = folder + one.name
            if one.name.startswith("."):
                continue
            if one.is_dir():
                if not one.is_symlink() and _may_hold(f"{key}/", prefix, after):
                    yield from self._below(f"{key}/", prefix, after)
            elif key.startswith(prefix) and key > after:
                with suppress(FileNotFoundError):
                    stat = one.stat()
                    mark = f"{stat.st_mtime_ns} {stat.st_ino}"
                    yield Entry(key, stat.st_size, stat.st_mtime, mark)

    def _now(self) -> float:
        """The file system's clock, which a network mount does not share with this machine."""
        self._hidden.mkdir(parents=True, exist_ok=True)
        clock = self._hidden / "clock"
        clock.touch()
        return clock.stat().st_mtime

    def _path(self, key: str) -> Path:
        require_key(key)
        if any(len(part.encode()) > MAX_NAME for part in key.split("/")):
            raise BadKey(
                f"object key {key!r}: expected at most {MAX_NAME} bytes between two /, which a "
                "folder can hold; shorten it"
            )
        return self.folder / key

    def _prune(self, folder: Path) -> None:
        """Remove folders that hold nothing: a store has none. A writer may put one back."""
        while folder != self.folder:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                return
            folder = folder.parent

    def _found(self, key: str) -> Stored | None:
        try:
            return self.read(key)
        except NoSuchObject:
            return None

    def _put(self, key: str, data: bytes) -> str:
        draft = self._drafted(key, io.BytesIO(data))
        try:
            os.replace(draft, self._path(key))
        finally:
            draft.unlink(missing_ok=True)
        return _tag(data)

    def _drafted(self, key: str, source: BinaryIO) -> Path:
        """The bytes in a flushed file beside the key's; while it lies there the folder stays."""
        while True:
            try:
                draft = self._draft(key)
                file = open(draft, "xb")  # noqa: SIM115 - closed below
            except FileNotFoundError:  # its folder was pruned just now: make it again
                continue
            try:
                with file:
                    shutil.copyfileobj(source, file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            return draft

    def _draft(self, key: str) -> Path:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                return path.with_name(f".{uuid.uuid4().hex}.draft")
        except (FileExistsError, NotADirectoryError):
            below = path.relative_to(self.folder).parents
            if not any((self.folder / one).is_file() for one in below):  # pruned in between
                raise FileNotFoundError(path) from None
        raise BadKey(
            f"object key {key!r}: expected a key that is no folder of other keys and lies below no "
            f"object, as files in {self.folder} must; choose another one"
        )

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        require_key(key)
        self._hidden.mkdir(parents=True, exist_ok=True)
        which = int(hashlib.sha256(key.encode()).hexdigest(), 16) % LOCKS
        with open(self._hidden / f"{which:02d}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


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


def _may_hold(folder: str, prefix: str, after: str) -> bool:
    """Whether keys in a folder can begin with `prefix` and be greater than `after`."""
    below = folder.startswith(prefix) or prefix.startswith(folder)
    return below and (folder > after or after.startswith(folder))


def _is_object(key: str) -> bool:
    return not any(part.startswith(".") for part in key.split("/"))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
