"""Base models in a bucket: `s3://bucket/prefix` becomes a folder of this machine, fetched once.

The library reads folders and knows no bucket. An entry of the cache is named by what the bucket
lists (names, sizes, marks), so other files in the bucket are another entry and two bases are never
mixed. It appears whole or not at all; several processes may fetch it at once. Endpoint and
credentials are those of the state's bucket: the usual AWS settings.
"""

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from components.services.store.home import SCRATCH, Home
from components.services.store.objects import Entry, Objects
from components.services.store.open import SCHEME, open_objects
from l2dm.errors import (
    BadBase,
    BadKey,
    ClosedStore,
    Conflict,
    Corrupt,
    NoSuchObject,
    TooLarge,
    words,
)

ROUNDS = 3  # times that a base which was written anew meanwhile is fetched
ABANDONED = 24 * 3600.0  # seconds until what a killed process had begun to fetch is removed
MOVED = (Conflict, Corrupt, NoSuchObject, TooLarge)  # what an object is that was listed otherwise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listed:
    """The objects of a base in a bucket, without those that are never fetched."""

    base: str
    entries: tuple[Entry, ...]

    @property
    def key(self) -> str:
        """Another one for every change of a file."""
        facts = [[one.key, one.size, one.mark] for one in self.entries]
        return hashlib.sha256(json.dumps([self.base, facts]).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Of the folder: an export names its base so."""
        return self.base.rpartition("/")[2]

    def is_whole(self, folder: Path) -> bool:
        """Whether every file is there with the size that the bucket lists."""
        return all(_size(folder / one.key) == one.size for one in self.entries)


def local_base(base: str, home: Home) -> str:
    """What the library loads this base by: a folder in the home's cache if it lies in a bucket.

    The first use fetches it, each further one costs a listing. Raises BadBase, and BadStore when
    the store does not answer.
    """
    if not base.startswith(SCHEME):
        return base
    for _ in range(ROUNDS):
        objects, listed = _looked_at(base)
        entry = home.base_cache / listed.key
        if listed.is_whole(entry / listed.name):
            return str(entry / listed.name)
        if _fetched(objects, listed, entry):
            return str(entry / listed.name)
    raise BadBase(
        f"base model {base}: expected files that stay as they are, found them written anew while "
        "they were fetched; try again when their upload has ended"
    )


def fetch_to_serve(base: str) -> str:
    """The same where a version is served, without a state folder: an entry point of the package.

    It is kept where the state would be if it lay beside the base. Raises BadBase, BadStore.
    """
    return local_base(base, Home.at(base))


def require_listed(base: str) -> None:
    """Refuse a base in a bucket that nothing can be learned on, by a listing; nothing is fetched.

    Raises BadBase, also where it lacks encoders, and BadStore when the store does not answer.
    """
    from l2dm.bases.folder import without_encoders

    _, listed = _looked_at(base)
    if problems := without_encoders(one.key for one in listed.entries):
        raise BadBase([f"base model {base}: {problem}" for problem in problems])


def _looked_at(base: str) -> tuple[Objects, _Listed]:
    """The bucket and what of it is to be fetched. Raises BadBase for what cannot be a base."""
    from l2dm.bases import folder as base_folder

    with _told(base):
        objects = _opened(base)
        found = list(objects.list(""))
    names = [one.key for one in found]
    if "model_index.json" not in names:
        told = f"{len(names)} others such as {names[0]!r}" if names else "nothing below it"
        raise BadBase(f"base model {base}: {base_folder.no_index(told, 'name the prefix')}")
    if problems := base_folder.unloadable(names):
        raise BadBase([f"base model {base}: {problem}" for problem in problems])
    wanted = tuple(one for one in found if base_folder.fetched(one.key))
    return objects, _Listed(base.rstrip("/"), wanted)


def _opened(base: str) -> Objects:
    if not base.removeprefix(SCHEME).strip("/") or base.startswith(f"{SCHEME}/"):
        raise BadBase(
            f"base model {base}: expected s3://bucket/prefix, found no name of a bucket; write it "
            "behind s3://"
        )
    return open_objects(base)


@contextmanager
def _told(base: str) -> Iterator[None]:
    """A bucket that is missing or closed, or cannot be one, is a wrong base: whoever named it."""
    try:
        yield
    except ClosedStore as error:
        raise BadBase([f"base model {base}: {problem}" for problem in error.problems]) from error
    except BadKey as error:
        raise BadBase(f"base model {base}: {error}") from error


def _fetched(objects: Objects, listed: _Listed, entry: Path) -> bool:
    """Put the files into their entry of the cache; False when they are others by now.

    Raises BadBase when they are no base model. Then nothing stays.
    """
    draft = entry.parent / f".{uuid.uuid4().hex}.draft"
    folder, size = draft / listed.name, sum(one.size for one in listed.entries) / 1e9
    log.info("fetching base model %s, %.2f GB, into %s", listed.base, size, entry)
    try:
        remove_abandoned(entry.parent)
        with _told(listed.base):
            for one in listed.entries:
                objects.download(one.key, folder / one.key, limit=one.size)
        # what was written anew after it was listed has come with its new bytes
        if not listed.is_whole(folder) or _looked_at(listed.base)[1].key != listed.key:
            return False
        _require_base(folder, listed.base)
        _publish(draft, entry, listed)
        return True
    except MOVED:
        return False
    except OSError as error:
        raise BadBase(
            f"base model {listed.base}: expected room for {size:.2f} GB in {entry.parent}, found "
            f"{words(error)}; make room, let this user write there, or, with the state in a bucket,"
            f" name another folder in {SCRATCH}"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_base(folder: Path, base: str) -> None:
    """Raise BadBase, naming the bucket instead of the folder."""
    from l2dm.bases import folder as base_folder

    try:
        base_folder.require_outline(folder)
    except BadBase as error:
        told = [problem.replace(str(folder), base) for problem in error.problems]
        raise BadBase(told) from error


def _publish(draft: Path, entry: Path, listed: _Listed) -> None:
    """Give a draft its name, unless another process was first with the same files."""
    try:
        os.rename(draft, entry)
    except OSError:
        if not entry.is_dir():
            raise
        if not listed.is_whole(entry / listed.name):  # files of it were removed
            torn = draft.with_suffix(".torn")
            os.rename(entry, torn)
            os.rename(draft, entry)
            shutil.rmtree(torn, ignore_errors=True)


def remove_abandoned(cache: Path) -> None:
    """Remove what processes that were killed left half fetched, or half made."""
    for draft in cache.glob(".*"):
        with suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > ABANDONED:
                shutil.rmtree(draft, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
