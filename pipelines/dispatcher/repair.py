"""What is put right before a line goes on, under its lease: restores, aliases, half uploads."""

import json
import logging
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from components.services.line import status_cache
from components.services.line.after_backup import Dropped, agree, restore
from components.services.line.leases import Leases
from components.services.line.ledger import ConceptState, Standing
from components.services.line.promotion import Repair, repair
from components.services.line.records import Records, user
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry
from l2dm import doors
from l2dm.errors import BadDoor, L2dmError
from l2dm.files import manifest

log = logging.getLogger(__name__)

HALF = 24 * 3600.0  # seconds after its last file that an upload without concept.json is swept


def mend(home: Home, opened: Callable[[], Registry], records: Records, line: str) -> bool:
    """Make registry, records and aliases agree; whether something was recorded.

    Where they do, which is nearly always, the store is not asked: what was read of the records last
    is enough, because whatever is done next is recorded on condition that nothing came since.
    Raises L2dmError where the registry knows nothing of the line: that is for a person to judge.
    """
    registry, known = opened(), records.known
    aliases = Standing(**{str(name): one for name, one in registry.aliases(line).items()})
    if aliases == known.standing and agree(known, registry.versions(line)):
        return False
    status_cache.forget(home, line)
    dropped = restore(registry, records, line, unasked=True)
    if dropped:
        log.warning("line %s was restored; %s", line, dropped)
    moved = _follow(home, registry, records, line, dropped)
    return bool(dropped) or moved


def repair_line(home: Home, registry: Registry, line: str) -> Dropped | None:
    """The same when a person asks for it after a restore; what was dropped, None when they agreed.

    Every champion's files are read as well. Raises LineBusy.
    """
    with Leases(home.store).held(line):
        records = Records(home.store, line)
        status_cache.forget(home, line)
        dropped = restore(registry, records, line, loads=partial(_loads, registry, line))
        _follow(home, registry, records, line, dropped)
        return dropped


def _follow(
    home: Home, registry: Registry, records: Records, line: str, dropped: Dropped | None
) -> bool:
    """Uploads and aliases as the records have them now; whether an alias was set back."""
    if dropped:
        reopen(home, records, line, dropped)
    found = repair(registry, records, line)
    if found:
        tell_aliases(records, line, found)
    return bool(found)


def _loads(registry: Registry, line: str, version: int) -> bool:
    """Whether the files of a version can be read."""
    with TemporaryDirectory() as scratch:
        try:
            folder = registry.fetch(line, version, Path(scratch) / "release")
            manifest.read(folder, doors.Release)
        except (L2dmError, BadDoor, OSError) as error:
            log.warning("line %s: version %d cannot be read: %s", line, version, error)
            return False
    return True


def reopen(home: Home, records: Records, line: str, dropped: Dropped) -> None:
    """Uploads of lost versions wait again; one whose pictures are gone has failed, and is told."""
    uploads = Uploads(home.store, line)
    reasons = {f"version {number} is not in the registry any more" for number in dropped.lost}
    for state in records.concepts():
        reopened = state.state == "waiting" and set(state.reasons) & reasons
        if reopened and not uploads.digest(state.name):
            why = (*state.reasons, "its pictures are not in the inbox: submit them again")
            records.end(ConceptState(state.name, state.class_noun, "failed", reasons=why))


def tell_aliases(records: Records, line: str, found: tuple[Repair, ...]) -> None:
    """An alias that somebody moved by hand, or that a kill left behind: told and recorded."""
    for one in found:
        log.warning(
            "line %s: alias %s named version %d, the records say %d; set it back",
            line,
            one.alias,
            one.found,
            one.expected,
        )
    moved = [{"alias": one.alias, "found": one.found, "expected": one.expected} for one in found]
    records.append("mended", aliases=moved)


def sweep_halves(home: Home, records: Records, line: str, older: float = HALF) -> tuple[str, ...]:
    """Remove uploads that never got their concept.json; the caller holds the line.

    Ages are the store's own. A slow uploader is safe: its name is first taken by a concept.json of
    ours, created on condition, so whoever commits at this moment either came first, and is left
    alone, or is told that the name is taken.
    """
    store, uploads = home.store, Uploads(home.store, line)
    swept = []
    for name, keys in uploads.halves(older).items():
        mark = json.dumps({"swept": uuid.uuid4().hex, "by": user()}).encode()
        if not uploads.claim(name, mark):
            continue
        records.append("swept", upload=name, files=len(keys))
        for key in keys:
            store.delete(key)
        uploads.unclaim(name, mark)
        log.warning("line %s: %r never got its concept.json and was swept", line, name)
        swept.append(name)
    return tuple(swept)
