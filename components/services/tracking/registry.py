"""The registry of a line: versions that never change and three aliases that do.

One protocol, two implementations that pass one contract suite: `MlflowRegistry`
(`mlflow_registry.py`) and `FolderRegistry` here. `line/promotion.py` moves the aliases.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from components.services.store.home import delete_folder
from components.services.tracking import home_files
from l2dm import doors, escape
from l2dm.doors import Finding
from l2dm.errors import FilesGone, UnknownLine
from l2dm.files import manifest

Alias = Literal["champion", "challenger", "previous"]
VersionState = Literal["promoted", "held", "taken back"]  # as the line is now
ALIASES: tuple[Alias, ...] = ("champion", "challenger", "previous")
MAX_DIGITS = 9  # of a version's number


@dataclass(frozen=True)
class VersionFacts:
    """What the registry knows of a version without opening it.

    `digest` is that of the Release door, `open` the gate's verdict, `scores` numbers of the new
    concept's row. findings: what the gate found, one for each reason; of older versions none.
    knows: of a version that a concept was taken out of, everything that it knows, with the versions
    that learned it; its parents knew more. None: it knows what its parent knows, and its concept.
    """

    task: str
    concept: str
    class_noun: str
    parent_version: int
    digest: str
    open: bool
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    knows: Mapping[str, int] | None = None

    @property
    def verdict(self) -> Literal["open", "closed"]:
        """The gate's answer in a word."""
        return "open" if self.open else "closed"


def facts_of(door: manifest.Door[doors.Release]) -> VersionFacts | None:
    """What a release says of itself, its scores left out; None where it learned no concept."""
    release = door.record
    if release.concept is None:
        return None
    return VersionFacts(
        task=release.task,
        concept=release.concept.name,
        class_noun=release.concept.class_noun,
        parent_version=release.parent_version,
        digest=door.digest,
        open=release.verdict.open,
        reasons=release.verdict.reasons,
        findings=release.verdict.findings,
    )


@dataclass(frozen=True)
class Version:
    """One version of a line; numbers start at 1."""

    number: int
    facts: VersionFacts


class Registry(Protocol):
    """What this project asks of a registry."""

    def lines(self) -> tuple[str, ...]:
        """Every line with a version, by name."""
        ...

    def register(self, line: str, release: Path, facts: VersionFacts) -> int:
        """A version that holds this Release folder; a task is one version.

        Two runs of one task may both have learned it, one of them taken for dead; whose version has
        the lower number is the task's. The facts of the other one are not kept.
        """
        ...

    def versions(self, line: str) -> tuple[Version, ...]:
        """Every version, oldest first; none for a line that is unknown."""
        ...

    def aliases(self, line: str) -> Mapping[Alias, int]:
        """Which version each alias names; unset aliases are left out."""
        ...

    def every_alias(self) -> Mapping[str, Mapping[Alias, int]]:
        """The aliases of every line with a version, in few requests for any number of lines."""
        ...

    def set_alias(self, line: str, alias: Alias, version: int) -> None:
        """Point an alias at a version."""
        ...

    def drop_alias(self, line: str, alias: Alias) -> None:
        """Unset an alias; no error when it is not set."""
        ...

    def erase(self, line: str, versions: Sequence[int], names: Callable[[str], bool]) -> None:
        """Delete versions for good, with their files and with what was tracked of their tasks.

        names: whether a text names what is erased; whatever else is tracked of the line and does
        is deleted, too. Their numbers are never used again. No error where they are gone already.
        """
        ...

    def fetch(self, line: str, version: int, to: Path) -> Path:
        """Copy the Release folder of a version to `to`.

        Raises UnknownLine; FilesGone when the store answers that its files are not there, and
        TrackingFailed or OSError when they cannot be looked at.
        """
        ...

    def tell(
        self,
        line: str,
        champion: int,
        known: Mapping[str, int],
        lost: Mapping[str, int],
        states: Mapping[int, VersionState],
    ) -> None:
        """Say for people what the line's champion is, and what became of every version.

        known: what the champion knows, concepts and their versions. lost: what it knows not any
        more, after a rollback.
        """
        ...

    def adopt(self, line: str, lost: Mapping[int, str]) -> tuple[int, ...]:
        """Register versions again of which only the files are left, under their old numbers.

        lost: number and task. Returns the numbers that are there again.
        """
        ...


class FolderRegistry:
    """The twin without a server: `<folder>/<line>/<version>/` and `aliases.json` beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self) -> tuple[str, ...]:
        """See Registry."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("*/1")))

    def register(self, line: str, release: Path, facts: VersionFacts) -> int:
        """See Registry. The folder appears under its number by one rename: whole or not at all."""
        known = version_of(self.versions(line), facts.task)
        if known is not None:
            return known
        draft = self.folder / line / f".draft-{uuid.uuid4().hex}"
        shutil.copytree(release, draft / "release")
        (draft / "facts.json").write_text(json.dumps(manifest.to_data(facts)))
        while True:
            number = max((one.number for one in self.versions(line)), default=0) + 1
            while (self.folder / line / str(number)).exists():  # of one that was erased
                number += 1
            try:
                os.rename(draft, self.folder / line / str(number))
            except OSError:  # another writer took the number
                if not (self.folder / line / str(number)).exists():
                    raise
                continue
            first = version_of(self.versions(line), facts.task) or number
            if first != number:  # another run of this task came first
                shutil.rmtree(self.folder / line / str(number))
            return first

    def versions(self, line: str) -> tuple[Version, ...]:
        """See Registry."""
        found = []
        for path in (self.folder / line).glob("[0-9]*/facts.json"):
            try:
                text = path.read_text()
            except FileNotFoundError:  # a second writer of one task took its number back
                continue
            facts: VersionFacts = manifest.from_data(VersionFacts, json.loads(text))
            found.append(Version(int(path.parent.name), facts))
        return tuple(sorted(found, key=lambda version: version.number))

    def aliases(self, line: str) -> Mapping[Alias, int]:
        """See Registry."""
        path = self.folder / line / "aliases.json"
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        return {alias: found[alias] for alias in ALIASES if alias in found}

    def every_alias(self) -> Mapping[str, Mapping[Alias, int]]:
        """See Registry."""
        return {line: self.aliases(line) for line in self.lines()}

    def set_alias(self, line: str, alias: Alias, version: int) -> None:
        """See Registry."""
        require_version(self, line, version)
        self._write(line, {**self.aliases(line), alias: version})

    def drop_alias(self, line: str, alias: Alias) -> None:
        """See Registry."""
        kept = {name: number for name, number in self.aliases(line).items() if name != alias}
        self._write(line, kept)

    def erase(self, line: str, versions: Sequence[int], names: Callable[[str], bool]) -> None:
        """See Registry. An empty folder keeps the number."""
        for number in versions:
            folder = self.folder / line / str(number)
            (folder / "facts.json").unlink(missing_ok=True)
            delete_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, line: str, version: int, to: Path) -> Path:
        """See Registry."""
        require_version(self, line, version)
        release = self.folder / line / str(version) / "release"
        what = f"files of version {version} of line {line!r}"
        return copy_release(home_files.present(release, self.folder / line, what), to)

    def tell(
        self,
        line: str,
        champion: int,
        known: Mapping[str, int],
        lost: Mapping[str, int],
        states: Mapping[int, VersionState],
    ) -> None:
        """See Registry."""
        text = {"text": told_of(champion, known, lost), "states": {**states}}
        (self.folder / line).mkdir(parents=True, exist_ok=True)
        manifest.write_text(self.folder / line / "told.json", json.dumps(text))

    def adopt(self, line: str, lost: Mapping[int, str]) -> tuple[int, ...]:
        """See Registry. Facts and files lie together here: none is left without the other."""
        return ()

    def _write(self, line: str, aliases: Mapping[Any, int]) -> None:
        (self.folder / line).mkdir(parents=True, exist_ok=True)
        manifest.write_text(self.folder / line / "aliases.json", json.dumps(dict(aliases)))


def version_of(versions: tuple[Version, ...], task: str) -> int | None:
    """The version that a task became, the first one if there are more; None when there is none."""
    return next((version.number for version in versions if version.facts.task == task), None)


def require_version(registry: Registry, line: str, version: int) -> Version:
    """That version of that line. Raises UnknownLine, naming what there is."""
    found = registry.versions(line)
    for candidate in found:
        if candidate.number == version:
            return candidate
    numbers = [candidate.number for candidate in found]
    raise UnknownLine(
        f"expected version {version} of line {line!r}, found versions {numbers}; "
        "see `l2dm status` for what there is"
    )


def fetch_whole(registry: Registry, line: str, version: int, to: Path, advice: str = "") -> Path:
    """Copy the Release folder of a version to `to`, and check every byte of it.

    Raises as `fetch_unchecked` and `require_whole` do.
    """
    folder = fetch_unchecked(registry, line, version, to, advice)
    require_whole(folder, line, version, advice)
    return folder


def fetch_unchecked(
    registry: Registry, line: str, version: int, to: Path, advice: str = ""
) -> Path:
    """Copy the Release folder of a version to `to`, for who looks himself whether it is whole.

    Raises as Registry.fetch does, FilesGone with the way out. advice: as `require_whole` has it.
    """
    try:
        return registry.fetch(line, version, to)
    except FilesGone as error:
        raise FilesGone(f"{error}; {advice or _way_out(line)}") from error


def require_whole(
    release: Path, line: str, version: int, advice: str = ""
) -> manifest.Door[doors.Release]:
    """The release of a version whose files were fetched; BadDoor for others than were released.

    That names the version, what is missing or was changed, and the way out; never the folder, which
    is a copy. advice: the way out, if the caller knows a better one.
    """
    called = f"version {version} of line {line!r}"
    return manifest.read(release, doors.Release, called=called, advice=advice or _way_out(line))


def _way_out(line: str) -> str:
    return (
        f"`l2dm repair --line {line}` says which version is whole, `l2dm rollback --line {line} "
        "--to NUMBER` makes that one the champion; or bring its files back from a backup"
    )


def resolve(registry: Registry, line: str, name: str) -> int:
    """The version number that "champion", "previous", "challenger" or "3" means.

    Raises UnknownLine when the line has no such version or alias.
    """
    if name.isascii() and name.isdigit() and len(name) <= MAX_DIGITS:
        return require_version(registry, line, int(name)).number
    aliases = {str(alias): number for alias, number in registry.aliases(line).items()}
    if name in aliases:
        return aliases[name]
    versions = registry.versions(line)
    if not versions:
        raise UnknownLine(
            f"expected a version of line {line!r}, found none yet; `l2dm status` shows what waits, "
            f"`l2dm learn --line {line}` learns it"
        )
    raise UnknownLine(_no_such_alias(line, name, aliases, versions))


def _no_such_alias(
    line: str, name: str, aliases: Mapping[str, int], versions: Sequence[Version]
) -> str:
    """Why none of a line's versions, oldest first, has that name, and what to do."""
    newest, see = versions[-1], f"`l2dm status --line {line}` shows its versions"
    if name == "champion" and not newest.facts.open:
        never = not any(one.facts.open for one in versions)
        found = "that no version was promoted yet" if never else "that no version is one now"
        held = "challenger" if aliases.get("challenger") == newest.number else str(newest.number)
        return (
            f"expected a champion of line {line!r}, found {found}: the gate held the newest one, "
            f"version {newest.number}. `l2dm status --line {line}` and the line's report say why. "
            f"Name it with --version {held} to look at it, make it the champion with "
            f"`l2dm rollback --line {line} --to {held}`, or submit other pictures"
        )
    if name in ALIASES:
        meant = {
            "champion": "a version that was promoted",
            "challenger": "a version that the gate held",
            "previous": "a champion before the one of now",
        }
        return f"expected {meant[name]} in line {line!r}, found none; {see}, name one by its number"
    return (
        f"expected a version number or one of {sorted(aliases)} for line {line!r}, found "
        f"{name[:60]!r}; {see}"
    )


def told_of(champion: int, known: Mapping[str, int], lost: Mapping[str, int]) -> str:
    """What the champion is and knows, in Markdown."""
    if not champion:
        return "No champion yet."
    text = f"**Champion: version {champion}.** It knows {_named(known) or 'no concept'}."
    if lost:
        text += f"\n\nTaken back by a rollback, and not known any more: {_named(lost)}."
    return text


def _named(concepts: Mapping[str, int]) -> str:
    """Concepts with the versions that learned them."""
    return ", ".join(f"{escape.markdown(name)} (version {at})" for name, at in concepts.items())


def copy_release(source: Path, to: Path) -> Path:
    """Copy a Release folder; what was at `to` is replaced."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to)
    return to
