"""Base models that `l2dm base add` put under the state: `bases/` of the object store.

bases/<name>.json             what a base is and where its files are; written last, so it commits
bases/<name>.<draw>/<name>/   its files; a draw without a record is what a killed add left behind

A base is named by its record; what it is loaded by is a folder of this machine, or the address of
a prefix in the bucket, which `base_cache` fetches. Both follow the state wherever it lies.
"""

import json
import logging
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.services.store.home import Home
from l2dm.errors import BadBase, Conflict, NoSuchObject

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
ABANDONED = 24 * 3600.0  # seconds until files that no record names are removed
log = logging.getLogger(__name__)
_ROOT = "bases/"
_RESERVED = {"pocket"}


def require_name(name: str) -> None:
    """Raise BadBase for what cannot name a base."""
    if not NAME.fullmatch(name) or name in _RESERVED:
        raise BadBase(
            f"base name {name[:80]!r}: expected 1 to 40 lowercase letters, digits, - and _, and "
            f"none of {', '.join(_RESERVED)}; choose one with --name"
        )


def suggested_name(source: str) -> str:
    """The last part of a path or a hub name as a base may be called."""
    last = Path(source).name.removesuffix(".safetensors").lower()
    return re.sub(r"[^a-z0-9_]+", "-", last).strip("-_")[:40].strip("-_") or "base"


def stored_place(home: Home, name: str) -> str | None:
    """Load name of a stored base, or None where the state has none of that name."""
    if not NAME.fullmatch(name) or name in _RESERVED:
        return None
    record = _read(home, name)
    return None if record is None else place_of(home, record)


def place_of(home: Home, record: Mapping[str, Any]) -> str:
    """What the library or the cache loads a stored base by."""
    return f"{home.place.rstrip('/')}/{_ROOT}{record['files']}"


def listed(home: Home) -> list[dict[str, Any]]:
    """Every stored base, by name. A damaged record is told, and hides no other."""
    return _records(home)[0]


def shown(home: Home, name: str) -> dict[str, Any]:
    """One stored base. Raises BadBase, naming those that there are."""
    record = _read(home, name) if NAME.fullmatch(name) else None
    if record is None:
        known = ", ".join(one["name"] for one in listed(home)) or "none yet"
        raise BadBase(
            f"expected a base of {home.place}, found {name[:80]!r}; there are: {known}. Add one "
            "with `l2dm base add NAME_OR_FOLDER`"
        )
    return record


def store(home: Home, name: str, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Store a base's folder under its name; it is there whole or not at all. Raises BadBase.

    facts: what is shown of it. A name that is taken is refused, and nothing is written then.
    """
    require_free(home, name)
    remove_abandoned(home)
    files = f"{name}.{uuid.uuid4().hex[:12]}/{name}"
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        home.store.upload(f"{_ROOT}{files}/{path.relative_to(folder).as_posix()}", path)
    size = sum(path.stat().st_size for path in paths)
    record = {"name": name, "files": files, "bytes": size, **facts}
    try:
        home.store.create(f"{_ROOT}{name}.json", json.dumps(record, indent=1).encode())
    except Conflict as error:  # somebody was first while the files were copied
        _remove(home, f"{_ROOT}{files.partition('/')[0]}/")
        raise _taken(home, name) from error
    return record


def remove_abandoned(home: Home) -> None:
    """Remove files that an add left behind which was killed a day ago or longer."""
    entries = list(home.store.list(_ROOT))
    records, damaged = _records(home)
    named = {one["files"].partition("/")[0] for one in records}
    newest: dict[str, float] = {}
    for entry in entries:
        draw, inside, _ = entry.key[len(_ROOT) :].partition("/")
        if inside and draw not in named and draw.partition(".")[0] not in damaged:
            age = home.store.age(entry.key)
            newest[draw] = min(age, newest.get(draw, age))
    for draw, age in newest.items():
        if age > ABANDONED:
            _remove(home, f"{_ROOT}{draw}/")


def require_free(home: Home, name: str) -> None:
    """Raise BadBase for a name that is taken, or that cannot be one."""
    require_name(name)
    if _read(home, name) is not None:
        raise _taken(home, name)


def _taken(home: Home, name: str) -> BadBase:
    return BadBase(
        f"base name {name!r}: expected a free one, found a base of that name in {home.place}; "
        "choose another with --name"
    )


def _records(home: Home) -> tuple[list[dict[str, Any]], set[str]]:
    """The records that can be read, and the names of the others."""
    keys = [one.key for one in home.store.list(_ROOT)]
    found, damaged = list[dict[str, Any]](), set[str]()
    for name in (key[len(_ROOT) : -len(".json")] for key in keys if _is_record(key)):
        try:
            record = _read(home, name)
        except BadBase as error:
            log.warning("%s", error)
            damaged.add(name)
        else:
            found += [record] if record is not None else []
    return found, damaged


def _read(home: Home, name: str) -> dict[str, Any] | None:
    key = f"{_ROOT}{name}.json"
    try:
        record = json.loads(home.store.read(key).data)
    except NoSuchObject:
        return None
    except ValueError as error:
        raise BadBase(f"{key} in {home.place} is damaged ({error}); add the base again") from error
    draw, slash, last = (
        str(record.get("files", "")).partition("/") if _is_map(record) else ("",) * 3
    )
    if not slash or last != name or not draw.startswith(f"{name}.") or ".." in draw:
        raise BadBase(f"{key} in {home.place} is damaged; remove it and add the base again")
    return dict(record)


def _is_map(record: object) -> bool:
    return isinstance(record, dict)


def _is_record(key: str) -> bool:
    return key.endswith(".json") and key.count("/") == 1


def _remove(home: Home, prefix: str) -> None:
    for entry in list(home.store.list(prefix)):
        home.store.delete(entry.key)
