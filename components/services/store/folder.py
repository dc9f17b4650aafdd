"""Objects as files of one folder: the twin of a bucket without a server."""

import errno
import fcntl
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from components.services.store.objects import (
    Entry,
    Stored,
    missing,
    require_key,
    require_prefix,
    require_size,
)
from l2dm.errors import BadKey, Conflict, NoSuchObject
from l2dm.files.full_disk import told_where

MAX_NAME = 255  # bytes of one part of a key that a file system takes
LOCKS = 64  # lock files of a store; keys share them by hash
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
DEAD = 3600.0  # seconds after which a draft that nobody finished is swept


class FolderObjects:
    """The objects of a folder.

    Conditional writes hold a kernel lock (dropped when its holder dies) and rename a flushed file
    into place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hidden = folder / ".store"

    def read(self, key: str) -> Stored:
        """See Objects."""
        try:
            with open(self._path(key), "rb", opener=_open_at_once) as file:
                stat = os.fstat(file.fileno())
                if not S_ISREG(stat.st_mode):
                    raise FileNotFoundError(key)
                data, written = file.read(), stat.st_mtime
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoSuchObject(missing(key, str(self.folder))) from None
        except OSError as error:
            if error.errno != errno.ENXIO:  # of a socket
                raise
            raise NoSuchObject(missing(key, str(self.folder))) from None
        return Stored(data, _tag(data), max(0.0, self._now() - written))

    def age(self, key: str) -> float:
        """See Objects."""
        try:
            stat = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchObject(missing(key, str(self.folder))) from None
        if not S_ISREG(stat.st_mode):
            raise NoSuchObject(missing(key, str(self.folder)))
        return max(0.0, self._now() - stat.st_mtime)

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
            self._sweep(path.parent)
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
        self._sweep(draft.parent)

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
            elif key.startswith(prefix) and key > after and one.is_file():
                with suppress(FileNotFoundError):
                    stat = one.stat()
                    mark = f"{stat.st_mtime_ns} {stat.st_ino}"
                    yield Entry(key, stat.st_size, stat.st_mtime, mark)

    def _now(self) -> float:
        """The file system's clock, which a network mount does not share with this machine.

        A folder that can only be read has none: nobody who reads ages there acts on them.
        """
        clock = self._hidden / "clock"
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            clock.touch()
            return clock.stat().st_mtime
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            return time.time()

    def _path(self, key: str) -> Path:
        require_key(key)
        if any(len(part.encode()) > MAX_NAME for part in key.split("/")):
            raise BadKey(
                f"object key {key!r}: expected at most {MAX_NAME} bytes between two /, which a "
                "folder can hold; shorten it"
            )
        return self.folder / key

    def _sweep(self, folder: Path) -> None:
        """Remove the drafts of writers that were killed; a younger one may be written just now."""
        try:
            with os.scandir(folder) as found:
                drafts = [one for one in found if fnmatch(one.name, ".*.draft")]
        except FileNotFoundError:  # whoever deleted its last object pruned it just now
            return
        for draft in drafts:
            with suppress(FileNotFoundError):
                if self._now() - draft.stat().st_mtime > DEAD:
                    os.unlink(draft)

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
                with told_where(self._path(key)), file:
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


def _open_at_once(path: str, flags: int) -> int:
    """Open what may be a pipe that nobody writes to, which would wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _may_hold(folder: str, prefix: str, after: str) -> bool:
    """Whether keys in a folder can begin with `prefix` and be greater than `after`."""
    below = folder.startswith(prefix) or prefix.startswith(folder)
    return below and (folder > after or after.startswith(folder))


def _is_object(key: str) -> bool:
    return not any(part.startswith(".") for part in key.split("/"))


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
