"""Where MLflow keeps files of a state folder: named from the folder, never by the machine's path.

A location is written as `mlflow-artifacts:/<line>/...`, which is what a tracking server has for its
own files. Here it means `artifacts/<line>/...` beside the database, wherever that lies today; for
`mlflow server --backend-store-uri sqlite:///<home>/mlflow.db --artifacts-destination
<home>/artifacts` it means the same files. So a folder may be moved, renamed and mounted elsewhere.
"""

import filecmp
import logging
import os
import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.services.store.home import Home
from components.services.tracking.mlflow_plugin import SCHEME, files_of, folder_below
from l2dm.errors import FilesGone, TrackingFailed, words

SHARED_FROM = 4096  # bytes of a file

log = logging.getLogger(__name__)


def location(below: str) -> str:
    """How MLflow is told of what lies below a home's folder of artifacts."""
    return f"{SCHEME}:/{below}"


def register() -> None:
    """Make MLflow find such files in this process, also where this project is not installed."""
    from mlflow.store.artifact import artifact_repository_registry as known

    known._artifact_repository_registry.register(SCHEME, files_of)


def folder_of(home: Home, uri: str, line: str) -> Path:
    """The folder that a location of a line's files means in a home.

    An earlier release wrote whole paths: what stands behind their `artifacts/<line>/` counts.
    Raises TrackingFailed for a location that leads elsewhere.
    """
    if urlsplit(uri).scheme in ("", "file"):
        _, known, below = unquote(urlsplit(uri).path).rpartition(f"/{home.artifacts.name}/{line}/")
        uri = location(f"{line}/{below}") if known else uri
    try:
        return folder_below(home.artifacts, uri)
    except ValueError as error:
        raise TrackingFailed(
            f"expected files of MLflow below {home.artifacts}, found the location {uri!r}; they "
            "were not put there by this project"
        ) from error


def present(folder: Path, among: Path, what: str) -> Path:
    """The same folder, when it is there.

    among: where the folders of all versions of its line lie. what: lies in it, in words. Raises
    FilesGone when that one is there and this one is not, and TrackingFailed when that one is
    missing, too: a disk that is not mounted, rather than files that somebody removed. Raises
    OSError for what cannot be looked at.
    """
    try:
        folder.stat()
        return folder
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        among.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise TrackingFailed(
            f"expected {what} in {among}, found no such folder; mount the disk that "
            "holds it, or bring it back from a backup"
        ) from None
    raise FilesGone(f"expected {what} in {folder}, found none; others are there")


def share(folder: Path, last: Path, former: Path) -> int:
    """Give files that `former` has, too, under the same name, one copy with it. Returns bytes.

    A release holds everything that it needs, so most of its sheets and features are its parent's
    again. Bytes are compared, so a damaged file is never taken. Never one that `last` shares: of
    everything in a version and in that before it there are two copies. Deleting a version takes its
    names for them alone. A disk without hard links keeps its copies.
    """
    saved = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        try:
            saved += _share(path, last / name, former / name, folder)
        except OSError as error:
            log.debug("%s stays a copy of its own: %s", path, words(error))
    return saved


def _share(path: Path, last: Path, other: Path, folder: Path) -> int:
    size = path.lstat().st_size
    if not _is_plain(path) or not _is_plain(other) or size < SHARED_FROM:
        return 0
    if os.path.samefile(path, other) or (_is_plain(last) and os.path.samefile(last, other)):
        return 0
    if not filecmp.cmp(path, other, shallow=False):
        return 0
    draft = folder / f".shared-{uuid.uuid4().hex}"
    try:
        draft.hardlink_to(other)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return size


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
