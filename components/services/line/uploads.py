"""Uploads as the object store has them: `inbox/<line>/<concept>/`, committed by concept.json.

An upload without concept.json does not exist: it is still on its way, or never arrived whole.
Whatever the store is, anybody who may write there may have put it there, so uploads are fetched
under limits and checked again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from components.services.line.ledger import ENDINGS, ConceptState
from components.services.store.objects import Entry, Objects
from l2dm.doors import PictureFile, Upload
from l2dm.errors import BadKey, BadUpload, Conflict, L2dmError, NoSuchObject, TooLarge
from l2dm.files.concept_json import (
    FILE,
    MAX_FILES,
    MAX_JSON,
    MAX_NOUN,
    SLUG,
    leads_out,
    limits_in,
    to_bytes,
)
from l2dm.files.manifest import from_data

MAX_SHOWN = 60  # characters of a name that somebody wrote, in a message
FEW = 20  # names that are asked for one by one; above it a whole listing is cheaper


@dataclass(frozen=True)
class Commitment:
    """A concept.json. digest: sha256 of its bytes; mark: of the object as the store lists it.

    replaces: whether it says that it teaches a known concept anew; known where it was fetched.
    """

    digest: str = ""
    mark: str = ""
    replaces: bool = False


def fetched(folder: Path, mark: str) -> Commitment:
    """What was copied to a folder, whatever lies in its place now. mark: before it was copied."""
    path = folder / FILE
    data = path.read_bytes() if path.is_file() else b""
    digest = hashlib.sha256(data).hexdigest() if data else ""
    return Commitment(digest, mark, _replaces(data))


def _replaces(data: bytes) -> bool:
    """What a concept.json says of it; what else may be wrong with it is for intake to say."""
    try:
        return json.loads(data)["replaces"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def as_stored(upload: Upload) -> Upload:
    """The same with the names that its pictures have in the store.

    By their bytes: of two uploads with one name the second leaves the first one's pictures alone.
    """
    pictures = (replace(one, name=_stored_name(one)) for one in upload.pictures)
    return replace(upload, pictures=tuple(pictures))


def listed(data: bytes) -> set[str]:
    """Names of files in the upload's own folder that a concept.json lists; none of a broken one.

    What is wrong with it is for whoever reads the fetched upload to say.
    """
    try:
        names = {str(one["name"]) for one in json.loads(data)["pictures"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {name for name in names if not leads_out(name)}


class Uploads:
    """The committed uploads of one line. Digests are kept, because a look asks for them often."""

    def __init__(self, store: Objects, line: str) -> None:
        self._store, self._folder = store, f"inbox/{line}/"
        self._digests: dict[Entry, str] = {}
        self.set_aside: tuple[str, ...] = ()  # keys of the last look that are no concept's name

    def waiting(self, concepts: Sequence[ConceptState]) -> tuple[str, ...]:
        """Names of the uploads without a terminal state, oldest first."""
        ended = {state.name: state for state in concepts if state.state in ENDINGS}
        found = [(self._name(entry), entry) for entry in self._committed()]
        return tuple(
            name for name, entry in found if name not in ended or self._is_new(entry, ended[name])
        )

    def open(self, concepts: Sequence[ConceptState]) -> tuple[str, ...]:
        """The same at the price of one short request where nothing waits.

        It asks for names only, so it misses an upload that was put in the place of one that has
        ended, unless that was recorded (`l2dm submit` does it).
        """
        ended = {state.name for state in concepts if state.state in ENDINGS}
        there = self._slugs(self._store.folders(self._folder))
        names = [name for name in there if name not in ended]
        if len(names) > FEW:
            return self.waiting(concepts)
        found = [(self._commitment(name), name) for name in names]
        stamped = [(entry.modified, entry.key, name) for entry, name in found if entry]
        return tuple(name for _, _, name in sorted(stamped))

    def digest(self, name: str) -> str:
        """What tells one upload of a name from another: sha256 of its concept.json; "" if none."""
        return self.commitment(name).digest

    def tag_of(self, name: str, digest: str) -> str:
        """The store's tag of the concept.json that has this digest. Raises Conflict for another."""
        key = f"{self._folder}{name}/{FILE}"
        try:
            found = self._store.read(key)
        except NoSuchObject as error:
            raise Conflict(f"expected {key}, found nothing") from error
        if _digest(key, len(found.data), found.data) != digest:
            raise Conflict(f"expected the {key} that has ended, found another")
        return found.tag

    def commitment(self, name: str) -> Commitment:
        """What is there of an upload, to be recorded; an empty one if there is none."""
        entry = self._commitment(name)
        digest = self._of(entry) if entry else ""
        return Commitment(digest, entry.mark) if entry and digest else Commitment()

    def class_noun(self, name: str) -> str:
        """What its concept.json says it is; "" where it cannot be read."""
        try:
            entry = self._commitment(name)
            if entry is None or entry.size > MAX_JSON:
                return ""
            noun = _concept(self._store.read(entry.key).data).get("class_noun", "")
        except (NoSuchObject, BadKey):
            return ""
        return (
            noun if isinstance(noun, str) and noun.isprintable() and len(noun) <= MAX_NOUN else ""
        )

    def fetch(self, name: str, to: Path, *, max_bytes: int) -> Path:
        """Copy an upload to a folder that is not there yet: concept.json and what it lists.

        Anything else is left, it may be of an upload that came second. max_bytes: of one picture,
        where the upload does not carry the limit that it was accepted under. Raises BadUpload when
        it holds too much, before a picture moves.
        """
        prefix = f"{self._folder}{name}/"
        to.mkdir(parents=True)
        found = {entry.key.removeprefix(prefix): entry.size for entry in self._store.list(prefix)}
        names = self._listed(prefix, to) & set(found)
        problems = _other_name(to / FILE, name)
        max_bytes = _carried(to / FILE, max_bytes)
        problems += [
            f"{one!r} of upload {name!r}: expected at most {max_bytes:,} bytes, found "
            f"{found[one]:,}; submit a smaller picture"
            for one in sorted(names)
            if found[one] > max_bytes
        ]
        if len(names) > MAX_FILES:
            problems.append(
                f"upload {name!r}: expected at most {MAX_FILES} pictures, found {len(names)}; "
                "submit the pictures of one concept"
            )
        if problems:
            raise BadUpload(problems)
        for one in sorted(names):
            self._store.download(f"{prefix}{one}", to / one, limit=max_bytes)
        return to

    def commit(self, folder: Path, over: str = "") -> None:
        """Put the upload in `folder` into the store, concept.json last and on condition.

        over: digest of the upload whose place it takes, one that has ended. What that one had, or
        one that never got its concept.json, is removed. Raises BadUpload when another one was
        committed meanwhile; then, and after a full disk, nothing of this one is left.
        """
        name, upload = folder.name, _read(folder)
        stored = as_stored(upload)
        prefix = f"{self._folder}{name}/"
        before = {entry.key for entry in self._store.list(prefix)}  # who comes later puts others
        mine = {f"{prefix}{picture.name}" for picture in stored.pictures}
        try:
            for picture, kept in zip(upload.pictures, stored.pictures, strict=True):
                self._store.upload(f"{prefix}{kept.name}", folder / picture.name)
            self._write(name, to_bytes(stored), over)
        except (Conflict, OSError) as error:
            self._withdraw(prefix, mine - before)
            if not isinstance(error, Conflict):
                raise
            raise BadUpload(
                f"concept {name!r}: expected a new upload, found one of this name waiting in the "
                "store; choose another name, or wait until it has ended"
            ) from error
        self._remove(before - mine - {f"{prefix}{FILE}"})

    def _write(self, name: str, text: bytes, over: str) -> None:
        """Write a concept.json where there is none, or over the one of that digest."""
        key = f"{self._folder}{name}/{FILE}"
        if over:
            self._store.replace(key, text, self.tag_of(name, over))
        else:
            self._store.create(key, text)

    def _withdraw(self, prefix: str, keys: set[str]) -> None:
        """Remove pictures of an upload that came second, but none that the first one lists."""
        names = set[str]()
        with suppress(L2dmError):
            with suppress(NoSuchObject):
                names = listed(self._store.read(f"{prefix}{FILE}").data)
            self._remove(keys - {f"{prefix}{name}" for name in names})

    def _remove(self, keys: Iterable[str]) -> None:
        """Remove pictures that no upload lists; where that cannot be done they do no harm."""
        for key in sorted(keys):
            with suppress(L2dmError):
                self._store.delete(key)

    def halves(self, older: float) -> dict[str, tuple[str, ...]]:
        """Names without a concept.json whose last file was written so many seconds ago, with keys.

        By the store's clock: one that is wrong on this machine sweeps nothing.
        """
        found: dict[str, list[Entry]] = {}
        for entry in self._store.list(self._folder):
            if entry.key.count("/") >= 3 and SLUG.fullmatch(self._name(entry)):
                found.setdefault(self._name(entry), []).append(entry)
        halves = {}
        for name, entries in found.items():
            keys = tuple(entry.key for entry in entries)
            if f"{self._folder}{name}/{FILE}" in keys:
                continue
            newest = max(entries, key=lambda entry: entry.modified)
            if self._age(newest) > older:
                halves[name] = keys
        return halves

    def claim(self, name: str, mark: bytes) -> bool:
        """Take a name without concept.json, so that nobody commits it meanwhile."""
        try:
            self._store.create(f"{self._folder}{name}/{FILE}", mark)
        except Conflict:
            return False
        return True

    def unclaim(self, name: str, mark: bytes) -> None:
        """Free the name again, unless somebody wrote over the mark without asking."""
        key = f"{self._folder}{name}/{FILE}"
        with suppress(NoSuchObject):
            if self._store.read(key).data == mark:
                self._store.delete(key)

    def _age(self, entry: Entry) -> float:
        """Seconds since it was written, by the store's clock; 0 when it is gone."""
        try:
            return self._store.age(entry.key)
        except NoSuchObject:
            return 0.0

    def _commitment(self, name: str) -> Entry | None:
        key = f"{self._folder}{name}/{FILE}"
        return next((one for one in self._store.list(key) if one.key == key), None)

    def _is_new(self, entry: Entry, state: ConceptState) -> bool:
        """Whether it is another upload than the one that ended.

        The very object that was looked at then is not read again; of a copy of the store it is.
        """
        return entry.mark != state.mark and self._of(entry) != state.upload

    def _committed(self) -> list[Entry]:
        entries = [
            entry
            for entry in self._store.list(self._folder)
            if entry.key.count("/") == 3 and entry.key.endswith(f"/{FILE}")
        ]
        named = set(self._slugs({self._name(entry): None for entry in entries}))
        entries = [entry for entry in entries if self._name(entry) in named]
        return sorted(entries, key=lambda entry: (entry.modified, entry.key))

    def _slugs(self, names: Iterable[str]) -> list[str]:
        """The names that a concept can have; the others are set aside, whatever is in them."""
        names = list(names)
        strange = (f"{self._folder}{name}" for name in names if not SLUG.fullmatch(name))
        self.set_aside = tuple(sorted(strange))
        return [name for name in names if SLUG.fullmatch(name)]

    def _listed(self, prefix: str, to: Path) -> set[str]:
        """Fetch concept.json; names of the files that it lists."""
        try:
            self._store.download(f"{prefix}{FILE}", to / FILE, limit=MAX_JSON)
        except NoSuchObject:
            return set()
        except TooLarge as error:
            raise BadUpload(str(error)) from error
        return listed((to / FILE).read_bytes())

    def _name(self, entry: Entry) -> str:
        return entry.key.split("/")[2]

    def _of(self, entry: Entry) -> str:
        if entry not in self._digests:
            try:
                read = entry.size <= MAX_JSON
                data = self._store.read(entry.key).data if read else b""
            except NoSuchObject:  # withdrawn while we looked
                return ""
            self._digests[entry] = _digest(entry.key, entry.size, data)
        return self._digests[entry]


def _read(folder: Path) -> Upload:
    """The concept.json that `l2dm.uploads.folder` wrote."""
    upload = from_data(Upload, json.loads((folder / FILE).read_bytes()))
    assert isinstance(upload, Upload)
    return upload


def _carried(path: Path, max_bytes: int) -> int:
    """Bytes of one picture that a fetched concept.json says it was accepted under."""
    from l2dm.spec import IntakeSpec

    data = path.read_bytes() if path.is_file() else b""
    return limits_in(data, IntakeSpec(max_bytes=max_bytes)).max_bytes


def _other_name(path: Path, name: str) -> list[str]:
    """What is wrong with a concept.json that names another concept than its folder.

    Whoever waits for the one, cancels it or looks for its pictures knows it by the folder.
    """
    found = _concept(path.read_bytes()).get("name", name) if path.is_file() else name
    if found == name:
        return []
    return [
        f"upload {name!r}: expected a {FILE} that names its own folder, found concept "
        f"{str(found)[:MAX_SHOWN]!r}; submit the pictures again"
    ]


def _concept(data: bytes) -> dict[str, Any]:
    """What a concept.json says of its concept; nothing where it cannot be read."""
    try:
        found = json.loads(data)["concept"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _stored_name(picture: PictureFile) -> str:
    name = PurePath(picture.name)
    return f"{name.stem}-{picture.sha256[:16]}{name.suffix}"


def _digest(key: str, size: int, data: bytes) -> str:
    """Of a concept.json; of a huge one, which intake refuses, name and size tell it from others."""
    told = f"{key} {size}".encode() if size > MAX_JSON else data
    return hashlib.sha256(told).hexdigest()
