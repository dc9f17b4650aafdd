"""Everything that holds a concept is deleted, for good, and a record without its name says so.

What is to go is recorded first (`erasing`), and that record names the concept until all the rest
is gone. So a kill at any moment leaves something that a repeat of the same command finds and ends.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.runtime.expunging import expunge, names, tells_of
from components.runtime.line_report import renew_report, tell_champion
from components.services.line import snapshots, status_cache
from components.services.line.ledger import ENDINGS, Event, Ledger
from components.services.line.promotion import repair
from components.services.line.records import Records
from components.services.store.home import Home, delete_folder
from components.services.tracking.connection import server
from components.services.tracking.registry import Registry, Version
from l2dm.errors import BadDoor, Conflict, FilesGone, L2dmError, UnknownLine
from l2dm.files import children
from l2dm.redaction import redacted

MOVES = ("promotion", "rollback", "forgotten")


@dataclass(frozen=True)
class Erased:
    """versions: that were deleted. events: that were rewritten. champion: 0 if none is left.

    server: of MLflow, which only marks rows as deleted; "" where it is a file of ours.
    """

    versions: tuple[int, ...]
    events: int
    champion: int
    server: str = ""


def is_known(home: Home, registry: Registry, line: str, concept: str) -> bool:
    """Whether the champion knows a concept: it is to be taken out first."""
    champion = Records(home.store, line).state().standing.champion
    return concept in status_cache.Index({"champion": champion}, registry.versions(line)).known()


def erase(
    home: Home,
    registry: Registry,
    line: str,
    concept: str,
    allowed: Callable[[], None] = lambda: None,
) -> Erased:
    """Delete what holds a concept that the champion does not know (any more).

    The caller holds the line. allowed: raises when this process may not act any more. Raises
    UnknownLine when nothing is known of the concept, L2dmError while an upload of it is open, and
    OSError, TrackingFailed for what cannot be deleted: a repeat goes on then.
    """
    records = Records(home.store, line)
    intent = _begun(records, concept) or _begin(home, registry, records, line, concept)
    allowed()
    versions = tuple(intent.facts["versions"])
    snapshots.delete(home.store, line)
    status_cache.forget(home, line)
    repair(registry, records, line)
    _delete_objects(home, line, concept)
    _delete_files(home, line)
    registry.erase(line, versions, lambda text: names(text, concept))
    allowed()
    changed = expunge(records, records.events(), concept, intent.number)
    _tell(home, registry, records, line)
    if not any(e.kind == "erased" and e.facts["of"] == intent.number for e in records.latest()):
        records.append("erased", line=line, of=intent.number, versions=list(versions))
    champion = records.state().standing.champion
    snapshots.delete(home.store, line)
    # last, so that whoever is killed before finds the concept
    records.rewrite(intent.number, {**intent.facts, "forgets": ""})
    return Erased(versions, changed, champion, redacted(server() or ""))


def _begun(records: Records, concept: str) -> Event | None:
    """The record of an erasure of this concept that has not ended."""
    return next(
        (e for e in records.latest() if e.kind == "erasing" and e.facts["forgets"] == concept),
        None,
    )


def _begin(home: Home, registry: Registry, records: Records, line: str, concept: str) -> Event:
    """Record which versions are to go, and where the aliases stand from now on."""
    while True:
        ledger, events = records.state(), records.events()
        _require_closed(home, ledger, events, line, concept)
        versions = registry.versions(line)
        holders = {one.number for one in versions if _holds(registry, line, versions, one, concept)}
        standing = ledger.standing
        if standing.champion in holders:
            raise L2dmError(
                f"expected the champion of line {line!r} not to know {concept!r}, found that "
                f"version {standing.champion} does; it is to be taken out first"
            )
        try:
            return records.append_next(
                ledger.last,
                "erasing",
                line=line,
                forgets=concept,
                versions=sorted(holders),
                champion=standing.champion,
                previous=_previous(events, ledger, {one.number for one in versions} - holders),
                challenger=0 if standing.challenger in holders else standing.challenger,
            )
        except Conflict:
            continue


def _require_closed(
    home: Home, ledger: Ledger, events: Sequence[Event], line: str, concept: str
) -> None:
    state = ledger.concepts.get(concept)
    uploaded = any(home.store.list(f"inbox/{line}/{concept}/"))
    if state is None and not uploaded and not any(tells_of(one, concept) for one in events):
        raise UnknownLine(
            f"expected something of concept {concept!r} in line {line!r}, found nothing: it was "
            "never submitted, or has been erased"
        )
    open_ = state.state not in ENDINGS if state else uploaded
    if open_ or (ledger.active and ledger.active.concept == concept):
        raise L2dmError(
            f"expected every upload of {concept!r} to have ended, found one that waits or is being "
            f"learned; end it first: l2dm cancel --line {line} --concept {concept}"
        )


def _holds(
    registry: Registry, line: str, versions: Sequence[Version], version: Version, concept: str
) -> bool:
    """Whether a version knows a concept; one that nobody can say it of is taken to."""
    index = status_cache.Index({"champion": version.number}, tuple(versions))
    oldest = index.descent()[-1].facts
    if concept in index.known() or oldest.knows is not None or not oldest.parent_version:
        return concept in index.known()
    from l2dm.releases.without import known  # what it was learned from is lost: its files say it

    with tempfile.TemporaryDirectory() as scratch:
        try:
            return concept in known(registry.fetch(line, version.number, Path(scratch) / "one"))
        except (BadDoor, FilesGone):
            return True


def _previous(events: Sequence[Event], ledger: Ledger, stay: set[int]) -> int:
    """The champion before, of those that stay; 0 if none does."""
    now = ledger.standing
    past = [event.facts["target"] for event in events if event.kind in MOVES]
    left = [one for one in past if one in ledger.versions and one in stay]
    return next((one for one in reversed(left) if one != now.champion), 0)


def _delete_objects(home: Home, line: str, concept: str) -> None:
    """Uploads of the concept; of the line, what last runs left, and its report."""
    for prefix in (f"inbox/{line}/{concept}/", f"runs/{line}/", f"untold/{line}/"):
        for entry in list(home.store.list(prefix)):
            home.store.delete(entry.key)
    home.store.delete(home.report(line))


def _delete_files(home: Home, line: str) -> None:
    """What runs of the line left on this machine: logs, doors, checkpoints."""
    for folder in (home.folder / "runs" / line, home.folder / "work" / line):
        delete_folder(folder)
    for job in (home.folder / "dispatched").glob(f"*/{children.JOB}"):
        if _line_of(job) == line:
            delete_folder(job.parent)


def _line_of(job: Path) -> str:
    """The line of a dispatched run; "" where its job is gone, or none was written."""
    try:
        return str(json.loads(job.read_bytes())["line"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""


def _tell(home: Home, registry: Registry, records: Records, line: str) -> None:
    """Status, registry and report tell of the line as it is now."""
    index = status_cache.refresh(home, registry, line)
    tell_champion(registry, line, index)
    champion = index.aliases.get("champion", 0)
    task = next((one.facts.task for one in index.versions if one.number == champion), "")
    renew_report(home, registry, line, task)
