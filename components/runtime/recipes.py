"""A line's recipe against what is asked: read off the records, or once off an older champion."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from components.runtime.stored_bases import listed, place_of
from components.services.line.ledger import Ledger
from components.services.line.recipe import (
    NEW_BASE,
    Asked,
    Recipe,
    placed,
    portable,
    require_base,
    said_of,
)
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import Registry, fetch_whole
from l2dm import doors
from l2dm.errors import BadBase, L2dmError, words
from l2dm.files import door_files, manifest

if TYPE_CHECKING:
    from l2dm.spec import Spec

log = logging.getLogger(__name__)


def learned_with(
    home: Home, line: str, records: Records, asked: Asked, opened: Callable[[], Registry]
) -> tuple[str, str]:
    """Load name of the base, and spec as JSON, that a line learns with when somebody asks so.

    Raises BadSpec, BadBase where it keeps others. Nothing else was done then. opened: the registry,
    for a line whose champion is older than the record of how lines learn; it is recorded then.
    """
    from l2dm.spec import to_json

    ledger = records.state()
    fixed = bool(ledger.standing.champion)
    recipe = ledger.recipe
    if recipe is None and fixed:
        recipe = of_champion(line, records, ledger, opened())
    spec = asked.spec(line, recipe, fixed=fixed)
    return base_of(home, line, recipe, asked.base, fixed=fixed), to_json(spec)


def base_of(home: Home, line: str, recipe: Recipe | None, asked: str, *, fixed: bool) -> str:
    """The base of a line by its load name. asked: "" for its own. Raises BadBase."""
    own, there = _own(home, recipe)
    if recipe and own and not asked and not there:
        own = _taken_instead(home, line, recipe, own)
        if not own:
            raise BadBase(
                f"line {line!r} learns on the base in {placed(recipe.base, home.folder)} "
                f"(fingerprint {recipe.fingerprint}), found no such folder; name its new place "
                "with --base, or keep a copy with the state: l2dm base add FOLDER"
            )
    base = asked or own or NEW_BASE
    if recipe is not None and fixed:
        found = _fingerprint(base)
        require_base(line, recipe, base, found, home.folder, given=bool(asked))
    return base


def named_base(home: Home, ledger: Ledger) -> str:
    """The base that a line names, whether it is there or not; the default where it names none."""
    return _own(home, ledger.recipe)[0] or NEW_BASE


def checked_on(home: Home, line: str, ledger: Ledger, given: str) -> str:
    """The base that a line's champion is checked on: its own, whatever others are learned on.

    given: what to take where the records name none, or its folder is not there; "" for the default.
    """
    own, there = _own(home, ledger.recipe)
    if ledger.recipe and own and not there:
        own = _taken_instead(home, line, ledger.recipe, own)
    return own if there else own or given or NEW_BASE


def _own(home: Home, recipe: Recipe | None) -> tuple[str, bool]:
    """A line's base by its load name, "" where none is known, and whether it may be there.

    A folder is looked for; what a hub or a bucket has, its loader says.
    """
    if recipe is None or not recipe.base:
        return "", False
    own = placed(recipe.base, home.folder)
    return own, own == recipe.base or Path(own).is_dir()


def _taken_instead(home: Home, line: str, recipe: Recipe, own: str) -> str:
    """The same base in another place that this state knows, told in a sentence; "" for none.

    A base beside a state folder does not move along with it. Another copy is known where it was
    stored by `l2dm base add`, or where a task or another line names one.
    """
    for base in dict.fromkeys(_known_elsewhere(home, recipe.fingerprint)):
        if base != own and _is_base(base, recipe.fingerprint):
            log.warning(
                "line %s: its base is no longer in %s; taken instead: %s, which holds the same "
                "files (fingerprint %s)",
                line,
                own,
                base,
                recipe.fingerprint,
            )
            return base
    return ""


def _known_elsewhere(home: Home, fingerprint: str) -> Iterator[str]:
    """Load names of bases with these files, as far as the state's own records say so."""
    for record in listed(home):
        if record.get("fingerprint") == fingerprint:
            yield place_of(home, record)
    for line in home.lines():
        try:
            recipes = Records(home.store, line).state().recipes.values()
        except (L2dmError, OSError) as error:  # keeps no other line from its base
            log.warning("line %s: %s", line, words(error))
            continue
        for recipe in recipes:
            if recipe.base and recipe.fingerprint == fingerprint:
                yield placed(recipe.base, home.folder)


def _is_base(base: str, fingerprint: str) -> bool:
    """Whether these files are there; what a hub or a bucket has, the records said."""
    from l2dm.bases import folder as base_folder

    if base_folder.source_of(base) == "folder" and not Path(base).is_dir():
        return False
    try:
        return _fingerprint(base) in ("", fingerprint)
    except (BadBase, OSError):
        return False


def recipe_of(home: Home, spec: "Spec", base: str, fingerprint: str) -> Recipe:
    """What a task with this spec and base sets. base: its load name. Imports the method's page."""
    return said_of(spec, portable(base, home.folder, shared=bool(home.bucket)), fingerprint)


def of_champion(line: str, records: Records, ledger: Ledger, registry: Registry) -> Recipe:
    """How the champion was learned, by its release; recorded, so that it is fetched once."""
    from l2dm.spec import kept_of

    version = ledger.standing.champion
    with tempfile.TemporaryDirectory() as scratch:
        release = fetch_whole(registry, line, version, Path(scratch) / "release")
        adapter = manifest.read(release / door_files.ADAPTER, doors.Adapter)
    method = adapter.record.method
    recipe = Recipe(kept_of(adapter.spec, method), "", adapter.record.base)
    records.append(
        "kept", task=ledger.versions.get(version, ""), version=version, recipe=asdict(recipe)
    )
    return recipe


def _fingerprint(base: str) -> str:
    """Of a base that lies on this machine; "" of one behind a name or an address."""
    from l2dm.bases import folder as base_folder

    if base_folder.source_of(base) not in ("shipped", "folder"):
        return ""
    return base_folder.fingerprint(base_folder.locate(base))
