"""What is put right before a line goes on, under its lease: restores, aliases, half uploads."""

import json
import logging
import uuid
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from components.services.line import status_cache
from components.services.line.after_backup import (
    Dropped,
    agree,
    champions,
    find_again,
    restore,
    take_back,
)
from components.services.line.leases import Leases
from components.services.line.ledger import ConceptState, Standing
from components.services.line.promotion import Repair, repair
from components.services.line.records import Records, user
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry, fetch_whole
from l2dm.errors import BadDoor, FilesGone, L2dmError

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
    find_again(registry, records, line)
    dropped = restore(registry, records, line, unasked=True)
    if dropped:
        log.warning("line %s was restored; %s", line, dropped)
    moved = _follow(home, registry, records, line, dropped)
    return bool(dropped) or moved


def repair_line(
    home: Home,
    registry: Registry,
    line: str,
    *,
    named: bool = True,
    agreed: Callable[[Dropped], bool] = lambda dropped: True,
) -> Dropped | None:
    """The same when a person asks for it after a restore; what was dropped, None when they agreed.

    Every champion's files are read as well. named: this very line was asked for, so that a registry
    which knows nothing of it may be the right one. agreed: whether this may be dropped. Raises
    LineBusy, and L2dmError where it may not, or where a version cannot be looked at: it is not
    gone, then.
    """
    with Leases(home.store).held(line):
        records, files = Records(home.store, line), cache(partial(has_files, registry, line))
        status_cache.forget(home, line)
        find_again(registry, records, line)
        compare = partial(restore, registry, records, line, unasked=not named, loads=files)
        found = compare(only_look=True)
        if found and not agreed(found):
            raise L2dmError(f"expected leave to drop this, found none, so nothing was: {found}")
        dropped = compare()
        _follow(home, registry, records, line, dropped)
        return dropped


def undo(home: Home, registry: Registry, line: str) -> tuple[int, ...]:
    """Take back what the last repair dropped, when it is there again; which versions.

    Raises L2dmError, LineBusy.
    """
    with Leases(home.store).held(line):
        records = Records(home.store, line)
        status_cache.forget(home, line)
        back = take_back(registry, records, line, partial(has_files, registry, line))
        _follow(home, registry, records, line, None)
        return back


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


def has_files(registry: Registry, line: str, version: int) -> bool:
    """Whether the files of a version are there; False only when the store says that they are not.

    Damaged ones are there: `require_whole_champion` tells of them. Raises what keeps them from
    being looked at.
    """
    with TemporaryDirectory() as scratch:
        try:
            registry.fetch(line, version, Path(scratch) / "release")
        except FilesGone as error:
            log.warning("line %s: version %d has no files: %s", line, version, error)
            return False
    return True


def require_whole_champion(home: Home, registry: Registry, line: str) -> None:
    """Raise BadDoor for a champion whose files were changed, naming the last version that is whole.

    Nothing is moved: whether the files come back or the champion goes is for a person to say.
    """
    records = Records(home.store, line)
    champion = records.state().standing.champion
    if not champion or _is_whole(registry, line, champion):
        return
    known, whole = records.state().versions, partial(_is_whole, registry, line)
    former = [one for one in champions(records.events()) if one != champion and one in known]
    last = next(filter(whole, dict.fromkeys(reversed(former))), 0)
    back = "bring its files back from a backup"
    offer = f"no former champion is whole, so {back}"
    if last:
        offer = f"version {last} is whole: `l2dm rollback --line {line} --to {last}`; or {back}"
    with TemporaryDirectory() as scratch:
        fetch_whole(registry, line, champion, Path(scratch) / "release", offer)


def _is_whole(registry: Registry, line: str, version: int) -> bool:
    """Whether every file of a version is there as it was written."""
    with TemporaryDirectory() as scratch:
        try:
            fetch_whole(registry, line, version, Path(scratch) / "release")
        except (BadDoor, FilesGone):
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
