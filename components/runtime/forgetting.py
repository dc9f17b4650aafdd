"""A concept is taken out of a line: its champion without it becomes the next version.

The way is that of a promotion: the lease, a task id of its own that is recorded first, a version,
an event that moves the champion, then the aliases. So a kill at any moment leaves the old champion
or the new one, and whoever repeats it ends it.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from components.runtime import recipes
from components.runtime.line_report import renew_report, tell_champion
from components.services.line import status_cache
from components.services.line.ledger import ENDINGS, Ledger
from components.services.line.promotion import repair, reserve, settle_forgotten
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import (
    Registry,
    VersionFacts,
    fetch_whole,
    require_version,
)
from l2dm.errors import L2dmError, UnknownLine


@dataclass(frozen=True)
class Forgotten:
    """The version without the concept, and the one that it was made from."""

    version: int
    source: int


def forget(
    home: Home,
    registry: Registry,
    line: str,
    concept: str,
    reason: str,
    allowed: Callable[[], None] = lambda: None,
) -> Forgotten:
    """Make the champion without a concept the champion. The caller holds the line.

    allowed: raises when this process may not act any more. Raises UnknownLine where the champion
    does not know the concept, DoesNotFit where its method cannot take one out, StaleParent.
    """
    records = Records(home.store, line)
    done = _done(records, registry, line, concept)
    with status_cache.changing(home, registry, line):
        if done:
            repair(registry, records, line)
        else:
            done = _take_out(registry, records, line, concept, reason, allowed)
    index = status_cache.refresh(home, registry, line)
    tell_champion(registry, line, index)
    facts = require_version(registry, line, done.version).facts
    renew_report(home, registry, line, facts.task)
    return done


def _take_out(
    registry: Registry,
    records: Records,
    line: str,
    concept: str,
    reason: str,
    allowed: Callable[[], None],
) -> Forgotten:
    from l2dm.releases.without import Change, require_exact, require_known, without

    ledger = records.state()
    champion = _champion(ledger, line, concept)
    recipe = ledger.recipe or recipes.of_champion(line, records, ledger, registry)
    with tempfile.TemporaryDirectory() as scratch:
        whole = fetch_whole(registry, line, champion, Path(scratch) / "whole")
        require_known(whole, concept)
        require_exact(whole)
        task = reserve(records, line, concept, champion)
        door = without(whole, concept, Path(scratch) / "release", Change(task, champion))
        facts = _facts(registry, line, concept, task, champion, door.digest)
        allowed()
        version = registry.register(line, door.folder, facts)
    settle_forgotten(
        registry,
        records,
        line,
        version,
        allowed,
        forgets=concept,
        reason=reason,
        left=len(facts.knows or ()),
        recipe=asdict(recipe),
    )
    return Forgotten(version, champion)


def _champion(ledger: Ledger, line: str, concept: str) -> int:
    """The version out of which the concept is to be taken. Raises UnknownLine, L2dmError."""
    if not ledger.standing.champion:
        raise UnknownLine(
            f"expected a champion of line {line!r} that knows {concept!r}, found no champion; "
            "`l2dm cancel` ends an upload that waits"
        )
    state = ledger.concepts.get(concept)
    if state is not None and state.state not in ENDINGS:  # it would come back
        raise L2dmError(
            f"expected every upload of {concept!r} to have ended, found one that waits or is being "
            f"learned; end it first: l2dm cancel --line {line} --concept {concept}"
        )
    return ledger.standing.champion


def _facts(
    registry: Registry, line: str, concept: str, task: str, champion: int, digest: str
) -> VersionFacts:
    """What the registry is told of the version; the name of the concept is not in it."""
    from l2dm.releases.without import REASON

    index = status_cache.Index({"champion": champion}, registry.versions(line))
    knows = {name: version for name, version in index.known().items() if name != concept}
    return VersionFacts(task, "", "", champion, digest, True, (REASON,), knows=knows)


def _done(records: Records, registry: Registry, line: str, concept: str) -> Forgotten | None:
    """The champion, where it is the version that was made without this concept."""
    ledger = records.state()
    state = ledger.concepts.get(concept)
    champion = ledger.standing.champion
    if state is None or state.state != "forgotten" or champion not in ledger.left:
        return None
    facts = require_version(registry, line, champion).facts
    knows = status_cache.Index({"champion": champion}, registry.versions(line)).known()
    return Forgotten(champion, facts.parent_version) if concept not in knows else None
