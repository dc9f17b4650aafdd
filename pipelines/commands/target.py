"""What a command works on: a line of a state folder, with a base and settings of the spec."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from components.services.store.home import Home
from l2dm.errors import BadUpload, UnknownLine

if TYPE_CHECKING:
    from components.services.line.recipe import Asked
    from components.services.tracking.registry import Registry
    from l2dm.spec import Spec


@dataclass(frozen=True)
class Target:
    """A line in a state folder, the base it is loaded on ("": its own), settings of the spec."""

    folder: str | Path
    line: str
    base: str
    settings: tuple[str, ...] = ()

    @cached_property
    def home(self) -> Home:
        """The state folder, with one store: what it keeps of a connection is kept."""
        return Home.at(self.folder)

    @cached_property
    def base_name(self) -> str:
        """Load name of the base that means the same in every process; unnamed, it is the line's."""
        from components.runtime.stored_bases import stored_place
        from l2dm.bases.folder import source_of

        if not self.base:
            return self._own_base()
        if stored := stored_place(self.home, self.base):
            return stored
        return str(Path(self.base).resolve()) if source_of(self.base) == "folder" else self.base

    def local_base(self) -> str:
        """What the library loads the base by on this machine; one in a bucket is fetched."""
        from components.runtime.base_cache import local_base

        return local_base(self.base_name, self.home)

    @property
    def asked(self) -> "Asked":
        """What is asked of a line that is to learn: a base if one was named, and the settings."""
        from components.services.line.recipe import Asked

        return Asked(self.base_name if self.base else "", self.settings)

    def _named_base(self) -> str:
        from components.runtime.recipes import named_base
        from components.services.line.ledger import Ledger
        from components.services.line.records import Records

        known = Records(self.home.store, self.line).state() if self.line else Ledger()
        return named_base(self.home, known)

    def _own_base(self) -> str:
        from components.runtime.recipes import base_of
        from components.services.line.records import Records

        known = self.line and Records(self.home.store, self.line).state().recipe
        return base_of(self.home, self.line, known or None, "", fixed=False)

    @cached_property
    def spec(self) -> "Spec":
        """The spec with its settings applied. Raises BadSpec."""
        from l2dm.spec import Spec, override

        return override(Spec(), self.settings)

    def registry(self) -> "Registry":
        """The registry of this state folder; imports mlflow.

        The line's own base need not be there: nothing is drawn by a registry.
        """
        return open_registry(self.home, self.base_name if self.base else self._named_base())

    def resolve(self, registry: "Registry", version: str) -> int:
        """The number of a version, by alias or number. Raises UnknownLine."""
        from components.services.line.records import Records
        from components.services.tracking.registry import resolve

        try:
            return resolve(registry, self.line, version)
        except UnknownLine:
            erased = Records(self.home.store, self.line).state().erased
            when = {str(number): at for number, at in erased.items()}.get(version.lstrip("0"))
            if when is None:
                raise
            raise UnknownLine(
                f"version {version} of line {self.line!r} was erased at {when}, "
                "with the concept that it held: nothing brings it back"
            ) from None

    @contextmanager
    def fetched(self, version: str) -> Iterator[tuple[int, Path]]:
        """A version's number and its Release folder, there for as long as the `with` lasts.

        version: alias or number. Raises UnknownLine, and BadDoor or FilesGone with the way out
        where its files are not what was released.
        """
        from components.services.tracking.registry import fetch_whole

        with tempfile.TemporaryDirectory() as scratch:
            registry = self.registry()
            number = self.resolve(registry, version)
            yield number, fetch_whole(registry, self.line, number, Path(scratch) / "release")


def open_registry(home: Home, base: str = "") -> "Registry":
    """The registry of a state folder, with the base that its new versions name; imports mlflow."""
    from components.runtime.outcomes import MODEL_CODE
    from components.services.tracking.mlflow_registry import MlflowRegistry

    return MlflowRegistry(home, base, MODEL_CODE)


def are_names(*texts: str) -> bool:
    """Whether all of these can name a line or a concept."""
    from l2dm.files.concept_json import SLUG

    return all(SLUG.fullmatch(text) for text in texts)


def require_name(what: str, name: str) -> None:
    """Raise BadUpload, with the name that it could be, for one that names no line or concept."""
    if not are_names(name):
        from l2dm.uploads.check import slug_problem

        raise BadUpload(slug_problem(what, name) or f"{what} {name!r}")


def require_line(home: Home, line: str) -> None:
    """Raise UnknownLine, naming what there is."""
    known = home.lines()
    if line not in known:
        raise UnknownLine(
            f"expected a line of {home.place}, found {line!r}; there are {list(known) or 'none'}, "
            "begin one with `l2dm submit DIR --line LINE --concept NAME --class-noun NOUN`"
        )


def chosen_lines(home: Home, line: str | None) -> tuple[str, ...]:
    """One line, or all of a state folder. Raises UnknownLine."""
    if line is None:
        return home.lines()
    require_line(home, line)
    return (line,)


def require_base(base: str) -> None:
    """Refuse a wrong base, or one without encoders, before a step is started.

    Hub names are looked up by the steps; buckets are listed here and fetched there.
    """
    from components.runtime.base_cache import require_listed
    from components.services.store.open import SCHEME
    from l2dm.bases import folder as base_folder

    if base.startswith(SCHEME):
        require_listed(base)
        return
    if base_folder.source_of(base) != "hub":
        base_folder.require_encoders(base_folder.locate(base))
