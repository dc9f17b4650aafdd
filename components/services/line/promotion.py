"""How the champion moves: by a verdict after a task, back by hand, or to be without a concept.

Nothing else moves it.

The records decide. A promotion is the event that is created right after the last one that was
read, so of two promoters, or of one that was paused and one that took over, the later creation
fails and looks again. Aliases are a copy of what the records say: whoever finds another alias there
(a kill in between, a hand in the registry) sets it again with `repair`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.services.line.ledger import ENDINGS, ConceptState
from components.services.line.records import Records
from components.services.tracking.registry import (
    ALIASES,
    Alias,
    Registry,
    VersionFacts,
    require_version,
    version_of,
)
from l2dm.errors import Conflict, L2dmError, LostLease, StaleParent


@dataclass(frozen=True)
class Repair:
    """An alias that named another version than the records say; 0 = none."""

    alias: Alias
    found: int
    expected: int


def require_parent(registry: Registry, records: Records, line: str, facts: VersionFacts) -> None:
    """Before a release is registered: a stale one makes no version. Raises StaleParent."""
    champion = records.state().standing.champion
    if champion == facts.parent_version or version_of(registry.versions(line), facts.task):
        return
    raise StaleParent(_stale(line, facts, champion))


def settle(
    registry: Registry,
    records: Records,
    line: str,
    version: int,
    allowed: Callable[[], None] = lambda: None,
) -> bool:
    """Promote the version if its gate is open, else make it challenger; True when it is champion.

    allowed: raises when this process may not act any more. It is asked between the reading of the
    records and the writing of the promotion: whoever took the line over before has recorded it, or
    records it after the promotion that it then reads.

    Raises StaleParent when the champion is neither the version's parent nor the version itself. A
    second call with the same arguments changes nothing, so a kill between any two statements is
    repaired by running the step again.
    """
    facts = require_version(registry, line, version).facts
    while True:
        now = records.state()
        last, champion = now.last, now.standing.champion
        if champion not in (facts.parent_version, version):
            raise StaleParent(_stale(line, facts, champion))
        if champion == version:
            break
        allowed()
        if not facts.open:
            break
        _require_open(now.concepts.values(), facts)
        names = {"line": line, "task": facts.task, "source": champion, "target": version}
        try:
            records.append_next(last, "promotion", **names)
        except Conflict:  # something was recorded since: perhaps another champion
            continue
    repair(registry, records, line, held=0 if facts.open else version)
    return facts.open


def roll_back(
    registry: Registry,
    records: Records,
    line: str,
    version: int,
    check: Callable[[int, Path], None],
    scratch: Path,
    *,
    expected: int | None = None,
    reasons: Sequence[str] = (),
) -> int:
    """Make an older version the champion again; returns the version it replaced.

    The target is fetched to `scratch` and `check(version, folder)` must accept it before anything
    is recorded; whatever it raises is passed on and the champion stays. expected: the champion that
    is to be replaced, if it matters; another one raises StaleParent. reasons: why, for the record.
    """
    require_version(registry, line, version)
    checked = False
    while True:
        now = records.state()
        last, champion = now.last, now.standing.champion
        if expected not in (None, champion):
            raise StaleParent(_replaced(line, expected, champion, version))
        if champion == version:
            raise L2dmError(
                f"version {version} is already the champion of line {line!r}; "
                "name another one with --to, see `l2dm status`"
            )
        if not checked:
            check(version, registry.fetch(line, version, scratch))
            checked = True
        try:
            records.append_next(
                last, "rollback", line=line, source=champion, target=version, reasons=list(reasons)
            )
        except Conflict:
            continue
        repair(registry, records, line)
        return champion


def reserve(records: Records, line: str, concept: str, champion: int) -> str:
    """The task id under which a concept is taken out of the champion; a repeat gets the same one.

    Raises StaleParent when another version is champion.
    """
    while True:
        now = records.state()
        if now.standing.champion != champion:
            raise StaleParent(_moved(line, concept, champion, now.standing.champion))
        begun = now.forgetting
        if begun is not None and (begun.concept, begun.parent) == (concept, champion):
            return begun.task
        task = f"t{now.tasks + 1:04d}"
        names = {"line": line, "task": task, "forgets": concept, "parent_version": champion}
        try:
            records.append_next(now.last, "forgetting", **names)
        except Conflict:  # something was recorded since: perhaps a task of this id
            continue
        return task


def settle_forgotten(
    registry: Registry,
    records: Records,
    line: str,
    version: int,
    allowed: Callable[[], None],
    **facts: Any,
) -> None:
    """Make a version without a concept the champion, as `settle` does with one that learned.

    facts: for the record: forgets, reason, left, recipe. Raises StaleParent.
    """
    made = require_version(registry, line, version).facts
    while True:
        now = records.state()
        champion = now.standing.champion
        if champion == version:
            break
        if champion != made.parent_version:
            raise StaleParent(_moved(line, facts["forgets"], made.parent_version, champion))
        allowed()
        names = {"line": line, "task": made.task, "source": champion, "target": version}
        try:
            records.append_next(now.last, "forgotten", **names, **facts)
        except Conflict:
            continue
    repair(registry, records, line)


def _moved(line: str, concept: str, expected: int, champion: int) -> str:
    return (
        f"expected the champion of line {line!r} to be version {expected}, out of which "
        f"{concept!r} is to be taken, found version {champion}; run it again"
    )


def _require_open(states: Iterable[ConceptState], facts: VersionFacts) -> None:
    """A task that was ended as failed, or cancelled, while its run slept promotes nothing."""
    for state in states:
        if state.task == facts.task and state.state in ENDINGS:
            raise LostLease(
                f"expected task {facts.task} to be open, found that {state.name!r} has ended as "
                f"{state.state}: {'; '.join(state.reasons)}; submit it again"
            )


def _replaced(line: str, expected: int | None, champion: int, version: int) -> str:
    return (
        f"expected the champion of line {line!r} to be version {expected}, which is to be "
        f"replaced by version {version}, found version {champion}; nothing was rolled back"
    )


def _stale(line: str, facts: VersionFacts, champion: int) -> str:
    return (
        f"expected the champion of line {line!r} to be version {facts.parent_version}, from which "
        f"task {facts.task} was learned, found version {champion}; the task's release gets no "
        f"alias, submit {facts.concept!r} again to learn it from the new one"
    )


def repair(registry: Registry, records: Records, line: str, *, held: int = 0) -> tuple[Repair, ...]:
    """Make the aliases say what the records say; returns what they said instead.

    held: a version whose gate closed just now, before its task's end is recorded. `previous` is
    set before `champion`. Records are read again at the end: they may have moved meanwhile, and
    then the aliases follow, so that a promoter that was paused never leaves its own there.
    """
    found: list[Repair] = []
    while True:
        ledger = records.state()
        last, now = ledger.last, ledger.standing
        wanted: dict[Alias, int] = {
            "previous": now.previous,
            "champion": now.champion,
            "challenger": held or now.challenger,
        }
        aliases = registry.aliases(line)
        wrong = [
            Repair(alias, aliases.get(alias, 0), version)
            for alias, version in wanted.items()
            if aliases.get(alias, 0) != version
        ]
        for one in wrong:
            if one.expected:
                registry.set_alias(line, one.alias, one.expected)
            else:
                registry.drop_alias(line, one.alias)
        found += wrong
        if not wrong and records.state().last == last:
            return tuple(sorted(found, key=lambda one: ALIASES.index(one.alias)))
