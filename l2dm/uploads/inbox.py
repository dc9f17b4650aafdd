"""The inbox: `inbox/<line>/<concept>/` holds an upload, pictures plus `concept.json`.

`concept.json` is written last inside a hidden draft folder, which is then renamed into place: an
upload is absent or whole, and of two that race for one name exactly one wins.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from l2dm.doors import Concept, PictureFile, Upload
from l2dm.errors import BadUpload
from l2dm.files.manifest import to_data, write_text
from l2dm.uploads.pictures import SUFFIXES, Look

FILE = "concept.json"
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}  # lower case; names with a dot are hidden
DEAD = 3600.0  # seconds after which a draft that nobody finished is swept


def store(
    folder: Path, inbox: Path, line: str, concept: Concept, looks: Mapping[str, Look]
) -> Upload:
    """Copy the pictures that `looks` names from `folder` to `inbox/<line>/<concept>/`, committed.

    Names become 00.jpg, 01.png, ... in the order of `looks`. Raises BadUpload when another upload
    of this name waits; whatever is raised, nothing is left in the inbox.
    """
    target = place(inbox, line, concept)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    draft = target.with_name(f".{target.name}.draft-{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir()
        upload = Upload(line, concept, _copied(folder, looks, draft))
        write_text(draft / FILE, json.dumps(to_data(upload), sort_keys=True, indent=1))
        _flush(draft)
        _commit(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _flush(target.parent)
    return upload


def place(inbox: Path, line: str, concept: Concept) -> Path:
    """The folder of an upload in the inbox; line and concept name are slugs."""
    return inbox / line / concept.name


def lines(inbox: Path) -> tuple[str, ...]:
    """Names of the lines that have a folder in the inbox, sorted."""
    return tuple(sorted(path.name for path in _folders(inbox)))


def waiting(inbox: Path, line: str) -> list[Path]:
    """Folders of the committed uploads of a line, the one committed first in front."""
    stamped = []
    for folder in _folders(inbox / line):
        try:
            stamped.append(((folder / FILE).stat().st_mtime_ns, folder.name, folder))
        except FileNotFoundError:
            continue  # not committed, or taken away while we looked
    return [folder for _, _, folder in sorted(stamped)]


def visible(folder: Path) -> list[Path]:
    """What lies in an upload, sorted; an old concept.json and what systems leave is not meant."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in {*SYSTEM_FILES, FILE}
    )


def already(target: Path) -> str:
    """The sentence for a name that another committed upload holds."""
    return (
        f"concept {target.name!r}: expected a new upload, found one already waiting in "
        f"{str(target)!r}; choose another name, or remove that folder first"
    )


def _copied(folder: Path, looks: Mapping[str, Look], draft: Path) -> tuple[PictureFile, ...]:
    pictures = []
    for i, (name, seen) in enumerate(looks.items()):
        stored = f"{i:02d}.{SUFFIXES[seen.format]}"
        content = (folder / name).read_bytes()
        with open(draft / stored, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        pictures.append(PictureFile(stored, hashlib.sha256(content).hexdigest()))
    return tuple(pictures)


def _commit(draft: Path, target: Path) -> None:
    """Rename the draft into place; what lies there without a concept.json was never committed."""
    with _locked(target.parent):
        if (target / FILE).exists():
            raise BadUpload(already(target))
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        try:
            os.rename(draft, target)
        except OSError as error:  # a writer that takes no lock came first
            if not target.exists():
                raise
            raise BadUpload(already(target)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # releases the lock, as a kill does


def _sweep(target: Path) -> None:
    for draft in target.parent.glob(f".{target.name}.draft-*"):
        with suppress(FileNotFoundError):  # its owner may finish while we look
            # A younger one may belong to a submit that is still copying.
            if time.time() - draft.stat().st_mtime > DEAD:
                shutil.rmtree(draft, ignore_errors=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
