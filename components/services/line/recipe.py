"""How a line learns: its method, its adapter, its base. Set at its first task, kept from then on.

A version can only be learned on from by the method and the adapter that made it, on its base. So
the records keep all three (`begun`), and whoever lets the line learn takes them from there.
Another one is refused before any work.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from l2dm.errors import BadBase, BadSpec

if TYPE_CHECKING:
    from l2dm.spec import Spec

METHOD = "train.method"
FORMER = "said"  # a field of records of before: options that differed from the defaults of then
NEW_BASE = "pocket"  # of a line that nobody named another one for


@dataclass(frozen=True)
class Recipe:
    """What a line keeps.

    settings: by dotted key of the spec, the method among them. base: its load name, "" where only
    its fingerprint is known; a folder's begins with a dot and is reached from the state folder.
    fingerprint: of the base's files.
    """

    settings: Mapping[str, Any]
    base: str
    fingerprint: str

    @property
    def method(self) -> str:
        """Its method's name."""
        return str(self.settings[METHOD])

    @property
    def adapter(self) -> str:
        """The other settings in a few words: "rank 8, gate token"."""
        others = {key.rpartition(".")[2]: one for key, one in self.settings.items()}
        return ", ".join(f"{key} {one}" for key, one in others.items() if key != "method")

    @property
    def own(self) -> dict[str, Any]:
        """The kept ones of the method's own options. All are said: a default may change."""
        at = f"{self.method}."
        return {k.removeprefix(at): one for k, one in self.settings.items() if k.startswith(at)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for something else."""
        if METHOD not in data["settings"]:
            raise ValueError(f"expected {METHOD} among {sorted(data['settings'])}")
        fields = {key: value for key, value in data.items() if key != FORMER}
        return cls(**fields | {"settings": dict(data["settings"])})


@dataclass(frozen=True)
class Asked:
    """What somebody asks of a line: a base ("": the line's own), settings as --set gives them."""

    base: str = ""
    settings: tuple[str, ...] = ()

    def spec(self, line: str, recipe: Recipe | None, *, fixed: bool) -> "Spec":
        """The spec to learn with: the recipe's, changed by what was asked.

        recipe: None for a line that has none yet. fixed: whether the line must keep it; without a
        champion it may begin anew. Raises BadSpec.
        """
        from l2dm.spec import Spec, keeping, override, said

        asked = said(self.settings)
        if recipe is None:
            return override(Spec(), self.settings)
        wrong = [
            f"{key} {json.dumps(recipe.settings[key])}, found {json.dumps(value)}"
            for key, value in asked.items()
            if key in recipe.settings and value != recipe.settings[key]
        ]
        if wrong and fixed:
            raise BadSpec([_other(line, one, "--set (or --method)") for one in wrong])
        if wrong:
            return override(Spec(), self.settings)
        shared = [key for key in recipe.settings if key.startswith("train.")]
        kept = [f"{key}={json.dumps(recipe.settings[key])}" for key in shared]
        return keeping(override(Spec(), [*kept, *self.settings]), recipe.own)


def said_of(spec: "Spec", base: str, fingerprint: str) -> Recipe:
    """The recipe that a task with this spec and base sets. base: as `portable` has it."""
    from l2dm.spec import kept

    return Recipe(kept(spec), base, fingerprint)


def portable(base: str, folder: Path, *, shared: bool) -> str:
    """The load name of a base as records may keep it: no path that begins at the root.

    folder: the state folder. shared: whether the state is a bucket; from there no folder is
    reached.
    """
    if not os.path.isabs(base):
        return base
    if shared:
        return ""
    return os.path.join(os.curdir, os.path.relpath(base, folder))


def placed(base: str, folder: Path) -> str:
    """What `portable` gave, as a load name again."""
    return str((folder / base).resolve()) if base.startswith(os.curdir) else base


def require_base(
    line: str, recipe: Recipe, base: str, found: str, folder: Path, *, given: bool
) -> None:
    """Refuse a base that is another one than the line's.

    base: its load name. found: its fingerprint, "" where it is not at hand: then names are compared
    as far as they are known, and the steps look closer. given: whether somebody named it. Raises
    BadBase.
    """
    name = placed(recipe.base, folder)
    same = found == recipe.fingerprint if found else name in ("", base)
    if same:
        return
    called = recipe.base or "of which no name is known"
    there = f"base {called} (fingerprint {recipe.fingerprint})"
    here = f"{base}{f' (fingerprint {found})' if found else ''}"
    if given:
        raise BadBase(_other(line, f"{there}, found {here}", "--base (and L2DM_BASE)"))
    raise BadBase(
        f"line {line!r} learns on {there}, found {here} in its place; name that base's folder "
        "with --base, its files decide"
    )


def _other(line: str, difference: str, option: str) -> str:
    return (
        f"line {line!r} keeps what it was begun with: expected {difference}; leave out {option}, "
        "or begin another line for it: l2dm submit ... --line OTHER"
    )
