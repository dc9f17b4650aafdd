"""A door as a folder: written atomically, checked when read.

`manifest.json` is written last into a hidden sibling folder, which is then renamed into place: a
door is absent or whole, never half. Its digest covers every byte of the door and the digests of
the doors it was made from, so lineage lives in the data. Nothing in it depends on time or place.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from l2dm import __version__
from l2dm.errors import BadDoor
from l2dm.files.full_disk import told_where

FORMAT = 1
FILE = "manifest.json"
_AGAIN = "run the step that writes it again"
R = TypeVar("R")


@dataclass(frozen=True)
class Door(Generic[R]):
    """A door that was written or read: its record, its folder, its digest and its lineage."""

    folder: Path
    record: R
    digest: str
    seed: int = 0
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A payload file of this door."""
        return self.folder / name


def write(
    folder: Path,
    record: R,
    fill: Callable[[Path], None],
    *,
    spec: Mapping[str, Any] | None = None,
    seed: int = 0,
    inputs: Mapping[str, str] | None = None,
) -> Door[R]:
    """Write a door: `fill` puts the payload into a draft folder, which then appears whole.

    An existing door is replaced. A full disk leaves the old door; a kill leaves the old one, the
    new one or none, and at most hidden drafts beside it, which the next write removes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep_drafts(folder)
    draft = folder.parent / f".{folder.name}.draft-{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    try:
        fill(draft)
        content: dict[str, Any] = {
            "kind": type(record).__name__,
            "format": FORMAT,
            "code": __version__,
            "spec": dict(spec or {}),
            "seed": seed,
            "inputs": dict(inputs or {}),
            "files": _checksums(draft),
            "record": to_data(record),
        }
        content["check"] = _digest(_text(content))
        text = _text(content)
        write_text(draft / FILE, text)
        _replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Door(folder, record, _digest(text), seed, content["spec"], content["inputs"])


def read(folder: Path, kind: type[R], *, called: str = "", advice: str = _AGAIN) -> Door[R]:
    """Read a door and check every byte of it: kind, format, files, manifest. Raises BadDoor.

    called: what people know it by, where its folder is a copy that soon is gone. advice: what is to
    be done about one that is missing or was changed.
    """
    path, place = folder / FILE, called or str(folder)
    where = f"{FILE} of {called}" if called else str(path)
    if not path.is_file():
        raise BadDoor(f"expected a {kind.__name__} door in {place}, found no {FILE}; {advice}")
    text, content = _content(path, where, advice)
    _require_format(place, content, advice)
    if content.get("kind") != kind.__name__:
        raise BadDoor(
            f"expected a {kind.__name__} door, found a {content.get('kind')} in {place}; check "
            "which folder is passed to which step"
        )
    written = _text(content) == text
    if content.pop("check", None) != _digest(_text(content)) or not written:
        raise BadDoor(f"{where} was changed after it was written; {advice}")
    if problems := _compare(folder, content["files"]):
        what = called or f"door {folder}"
        raise BadDoor(f"{what} is not what was written: {'; '.join(problems)}; {advice}")
    try:
        record = from_data(kind, content["record"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadDoor(f"{where} does not hold a {kind.__name__} record: {error}") from error
    return Door(folder, record, _digest(text), content["seed"], content["spec"], content["inputs"])


def to_data(value: Any) -> Any:
    """A record as JSON-able data; `from_data` is its inverse."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_data(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_data(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected finite numbers, found {value} in a record; missing is None")
    return value


def from_data(kind: Any, data: Any) -> Any:
    """Rebuild a value of type `kind` from JSON-able data. Raises KeyError, TypeError."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _from_union(kind, data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        unknown = set(_as(dict, data)) - set(hints)
        if unknown:
            raise KeyError(f"{kind.__name__} has no field {sorted(unknown)}")
        return kind(**{key: from_data(hints[key], value) for key, value in data.items()})
    if origin is tuple:
        return tuple(from_data(get_args(kind)[0], item) for item in _as(list, data))
    if origin is not None and issubclass(origin, Mapping):
        value_kind = get_args(kind)[1]
        return {key: from_data(value_kind, item) for key, item in _as(dict, data).items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise TypeError(f"expected {kind.__name__}, found {data!r}")
    return data


def write_text(path: Path, text: str) -> None:
    """Write a file that is absent or whole: to a sibling first, flushed to disk, then renamed."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with told_where(path), open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as(kind: type[Any], data: Any) -> Any:
    if not isinstance(data, kind):
        raise TypeError(f"expected {kind.__name__}, found {data!r}")
    return data


def _from_union(kind: Any, data: Any) -> Any:
    for option in get_args(kind):
        if option is type(None):
            if data is None:
                return None
            continue
        try:
            return from_data(option, data)
        except (TypeError, KeyError):
            continue
    raise TypeError(f"expected {kind}, found {data!r}")


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _require_format(place: str, content: Mapping[str, Any], advice: str) -> None:
    """Before anything else: what the rest of a manifest means depends on its format."""
    found = content.get("format")
    if found == FORMAT and type(found) is int:
        return
    if type(found) is not int:
        raise BadDoor(
            f"expected a door of format {FORMAT} in {place}, found format {found!r}; {advice}"
        )
    what = f"the {content.get('kind')} door in {place} has format {found}"
    writer = f"l2dm {content.get('code')}"
    if found > FORMAT:
        raise BadDoor(
            f"{what}, this version ({__version__}) reads format {FORMAT}: it was written by a "
            f"newer one, {writer}; upgrade l2dm on this machine"
        )
    raise BadDoor(
        f"{what}, this version ({__version__}) reads format {FORMAT}: it was written by an older "
        f"one, {writer}; read it with that one, or learn the line's concepts again"
    )


def _compare(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """What is wrong with the files of a door; nothing for one that is whole."""
    found = _checksums(folder)
    found.pop(FILE, None)
    missing, foreign = (
        sorted(expected.keys() - found.keys()),
        sorted(found.keys() - expected.keys()),
    )
    changed = sorted(
        name for name in expected.keys() & found.keys() if expected[name] != found[name]
    )
    found_wrong = (("missing", missing), ("foreign", foreign), ("changed", changed))
    return [f"{what} {names}" for what, names in found_wrong if names]


def _content(path: Path, where: str, advice: str) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        content = _as(dict, json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadDoor(f"{where} is not a manifest ({error!r}); {advice}") from error
    return text, content


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, indent=1)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sweep_drafts(folder: Path) -> None:
    for draft in folder.parent.glob(f".{folder.name}.draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


def _replace(draft: Path, folder: Path) -> None:
    """Renames only: deleting the old door first could be stopped halfway, and leave half a door."""
    if not folder.exists():
        os.replace(draft, folder)
        return
    old = draft.with_name(f"{draft.name}-old")
    os.replace(folder, old)
    try:
        os.replace(draft, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
