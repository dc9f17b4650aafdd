"""`lines/<line>.json`: what `l2dm status` shows, without opening the registry.

Importing mlflow costs over a second, so versions and aliases are copied here whenever they
change. The copy is removed before a change and written after it: a kill in between leaves no
copy, and the next reader asks the registry and writes it again.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from components.services.line.ledger import ENDINGS, ConceptState
from components.services.line.recipe import Recipe
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry, Version
from components.services.tracking.untold import untold
from l2dm.doors import Finding
from l2dm.errors import BadStore, L2dmError, NoSuchObject, words
from l2dm.files import manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """Versions and aliases of a line."""

    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()

    def descent(self) -> tuple[Version, ...]:
        """The champion and the versions it was learned from, newest first."""
        return descent(self.versions, self.aliases.get("champion", 0))

    def known(self) -> Mapping[str, int]:
        """What the champion knows: concepts and the versions that learned them.

        A rollback takes away what was learned after the version that it goes back to.
        """
        found: dict[str, int] = {}
        for version in reversed(self.descent()):
            facts = version.facts
            if facts.knows is None:
                found[facts.concept] = version.number
            else:  # a concept was taken out there
                found = dict(facts.knows)
        return found


def descent(versions: Sequence[Version], number: int) -> tuple[Version, ...]:
    """A version and those it was learned from, newest first; none for number 0."""
    by_number, found = {version.number: version for version in versions}, []
    while number in by_number:
        found.append(by_number[number])
        number = by_number[number].facts.parent_version
    return tuple(found)


def forget(home: Home, line: str) -> None:
    """Remove the copy: call before anything changes."""
    home.store.delete(_key(line))


@contextmanager
def changing(home: Home, registry: Registry, line: str) -> Iterator[None]:
    """Around what changes a line: the copy is removed before, `refresh` writes it afterwards.

    Where the change fails, the copy is written here, and what keeps it from that is told and no
    more: the first error is the one that counts.
    """
    forget(home, line)
    try:
        yield
    except BaseException:
        try:
            refresh(home, registry, line)
        except (L2dmError, OSError) as error:
            log.warning(
                "line %s: its copy for `l2dm status` was not made again: %s. The next "
                "`l2dm status` asks the registry",
                line,
                words(error),
            )
        raise


def refresh(home: Home, registry: Registry, line: str) -> Index:
    """Write the copy anew from the registry.

    Where it cannot be written, that is told and no more: it saves time and nothing else. The
    registry is asked again afterwards: a line that changed meanwhile may have written its copy
    before this one, which would stay.
    """
    index = _asked(registry, line)
    while True:
        _write(home, line, index)
        now = _asked(registry, line)
        if now == index:
            return index
        index = now


def _asked(registry: Registry, line: str) -> Index:
    return Index({str(a): n for a, n in registry.aliases(line).items()}, registry.versions(line))


def _write(home: Home, line: str, index: Index) -> None:
    try:
        home.store.write(_key(line), json.dumps(manifest.to_data(index), indent=1).encode())
    except (OSError, BadStore) as error:  # a full or a read-only disk, a bucket that is closed
        log.warning(
            "line %s: its copy for `l2dm status` was not stored: %s. What is shown is right; the "
            "next `l2dm status` asks the registry again",
            line,
            words(error),
        )


def read(home: Home, line: str, registry: Callable[[], Registry], *, anew: bool = False) -> Index:
    """The copy; written anew from the registry when it is missing and a task was ever begun.

    anew: the registry is asked whatever the copy says.
    """
    found = None if anew else _stored(home, line)
    if found is not None:
        return found
    if not Records(home.store, line).state().tasks:
        return Index()
    return refresh(home, registry(), line)


def _stored(home: Home, line: str) -> Index | None:
    """The copy as it lies there; None where none does, or one that cannot be read."""
    try:
        index: Index = manifest.from_data(Index, json.loads(home.store.read(_key(line)).data))
    except NoSuchObject:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, L2dmError) as error:
        log.warning(
            "line %s: %s cannot be read (%s), it is made again", line, _key(line), words(error)
        )
        return None
    return index


def concepts(home: Home, line: str, uploads: Uploads | None = None) -> tuple[ConceptState, ...]:
    """Every concept of a line: those with records, then uploads that nobody looked at yet."""
    states = {state.name: state for state in Records(home.store, line).concepts()}
    uploads = uploads or Uploads(home.store, line)
    for name in sorted(uploads.waiting(tuple(states.values()))):
        if name not in states or states[name].state in ENDINGS:
            states[name] = ConceptState(name, uploads.class_noun(name), "waiting")
    return tuple(states.values())


def status(home: Home, line: str, index: Index) -> dict[str, Any]:
    """One line as `l2dm status --json` prints it."""
    known = index.known()
    uploads = Uploads(home.store, line)
    standing = concepts(home, line, uploads)
    return {
        "name": line,
        **{alias: index.aliases.get(alias) for alias in ("champion", "challenger", "previous")},
        "recipe": _recipe(Records(home.store, line).state().recipe),
        "untold": [str(one) for one in untold(home.store, line)],
        "versions": [
            {
                "version": version.number,
                "task": version.facts.task,
                "concept": version.facts.concept,
                "verdict": version.facts.verdict,
                "reasons": list(version.facts.reasons),
                "findings": _findings(version.facts.reasons, version.facts.findings),
                "scores": dict(version.facts.scores),
            }
            for version in index.versions
        ],
        "concepts": [_concept(state, index.versions, known.get(state.name)) for state in standing],
        "set_aside": list(uploads.set_aside),
    }


def _concept(state: ConceptState, versions: Sequence[Version], known: int | None) -> dict[str, Any]:
    """One concept as `l2dm status --json` prints it. known: the version that the champion knows.

    A rollback may take back what was promoted last (`taken_back`). The champion may still know the
    concept by an older version, if it was taught anew: that one is shown then, with its reasons.
    """
    version, reasons, findings = state.version, state.reasons, state.findings
    back = state.state == "promoted" and known != version
    if back and known is not None:
        facts = {one.number: one.facts for one in versions}[known]
        version, reasons, findings = known, facts.reasons, facts.findings
    return {
        "name": state.name,
        "class_noun": state.class_noun,
        "state": state.state,
        "version": version,
        "reasons": list(reasons),
        "findings": _findings(reasons, findings),
        "known": known is not None,
        "known_version": known,
        "taken_back": state.version if back else None,
    }


def _findings(reasons: Sequence[str], findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """What the gate found on each of its questions; nothing where it does not say."""
    return [
        {"question": one.question, "passed": one.passed, "reason": reason}
        for reason, one in zip(reasons, findings, strict=False)
    ]


def _recipe(recipe: Recipe | None) -> dict[str, Any] | None:
    """How the line learns; None before its first task, and where nobody has looked yet."""
    if recipe is None:
        return None
    kept = {"settings": dict(recipe.settings), "fingerprint": recipe.fingerprint}
    return {"method": recipe.method, "adapter": recipe.adapter, "base": recipe.base, **kept}


def taken(home: Home, line: str, index: Index) -> dict[str, str]:
    """Concept names that cannot be submitted, each with the reason.

    A name is free again when its upload ended without reaching the champion, or when a rollback
    took the champion back to before it.
    """
    known = {
        name: f"learned in version {number}; l2dm submit --replace teaches it anew"
        for name, number in index.known().items()
    }
    open_states = ("waiting", "learning")
    busy = {
        s.name: f"its upload is {s.state}" for s in concepts(home, line) if s.state in open_states
    }
    return {**known, **busy}


def _key(line: str) -> str:
    return f"lines/{line}.json"
