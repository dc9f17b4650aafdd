"""After a restore: what only the records know, or only the registry, is dropped and reported.

A bucket and a database come back from backups of different minutes. Where the database is older,
the records name versions that do not exist: they are dropped, their uploads wait again, and the
champion is the last one that does exist. Where the bucket is older, the registry holds versions of
tasks that the records never began: they stay there, without alias and without successor. Either
way one event, `restored`, says what was dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.services.line.ledger import TASK, Event, Ledger
from components.services.line.records import Records
from components.services.tracking.registry import Registry, Version
from l2dm.errors import Conflict, L2dmError


@dataclass(frozen=True)
class Dropped:
    """lost: versions (and their tasks) that only the records know; unknown: that they do not."""

    lost: Mapping[int, str]
    unknown: tuple[int, ...]
    champion: int

    def __str__(self) -> str:
        return (
            f"versions that the registry does not have: {sorted(self.lost) or 'none'}; versions "
            f"that the records do not know: {list(self.unknown) or 'none'}; the champion is "
            f"{self.champion or 'none'}"
        )


def restore(
    registry: Registry,
    records: Records,
    line: str,
    *,
    unasked: bool = False,
    loads: Callable[[int], bool] = lambda version: True,
) -> Dropped | None:
    """Make records and registry agree; what was dropped, None when they did.

    The caller holds the line. loads: whether a version's files can be read. unasked: nobody has
    said that there was a restore, so a registry that knows nothing of the line is taken for another
    one; raises L2dmError then.
    """
    while True:
        ledger, versions = records.state(), registry.versions(line)
        last, tasks = ledger.last, {one.number: one.facts.task for one in versions}
        lost = {one: task for one, task in ledger.versions.items() if tasks.get(one) != task}
        broken = _unreadable(records, ledger, lost, loads)
        lost |= broken
        unknown = tuple(one.number for one in versions if _task(one.facts.task) > ledger.tasks)
        if not lost and not unknown:
            return None
        if unasked and lost and len(lost) == len(ledger.versions):
            raise L2dmError(_stranger(line, sorted(lost), [*tasks]))
        facts = _facts(records.events() if lost else (), ledger, lost, versions)
        try:
            records.append_next(
                last,
                "restored",
                lost=[{"version": one, "task": task} for one, task in sorted(lost.items())],
                unknown=list(unknown),
                **facts,
            )
        except Conflict:
            continue
        return Dropped(lost, unknown, facts["champion"])


def agree(ledger: Ledger, versions: Sequence[Version]) -> bool:
    """Whether neither knows what the other does not."""
    tasks = {one.number: one.facts.task for one in versions}
    known = all(tasks.get(number) == task for number, task in ledger.versions.items())
    return known and all(_task(task) <= ledger.tasks for task in tasks.values())


def _unreadable(
    records: Records, ledger: Ledger, lost: Mapping[int, str], loads: Callable[[int], bool]
) -> dict[int, str]:
    """Champions whose files are gone, from the present one back to the first that is whole."""
    now = ledger.standing.champion
    if now and now not in lost and loads(now):
        return {}
    found = {}
    for number in reversed(_champions(records.events())):
        if number in lost or number not in ledger.versions:
            continue
        if loads(number):
            break
        found[number] = ledger.versions[number]
    return found


def _facts(
    events: Sequence[Event], ledger: Ledger, lost: Mapping[int, str], versions: Sequence[Version]
) -> dict[str, int]:
    """Where the aliases stand afterwards, and the highest task number that is used up."""
    highest = max((_task(one.facts.task) for one in versions), default=0)
    now = ledger.standing
    there = [number for number in _champions(events) if number not in lost]
    if lost:
        champion = there[-1] if there else 0
        previous = next((one for one in reversed(there) if one != champion), 0)
    else:
        champion, previous = now.champion, now.previous
    challenger = 0 if now.challenger in lost else now.challenger
    names = {"champion": champion, "previous": previous, "challenger": challenger}
    return names | {"tasks": max(ledger.tasks, highest)}


def _champions(events: Sequence[Event]) -> list[int]:
    """Every champion that the line ever had, in order; a restore takes some of them away."""
    found: list[int] = []
    for event in events:
        if event.kind in ("promotion", "rollback"):
            found.append(event.facts["target"])
        elif event.kind == "restored":
            gone = {one["version"] for one in event.facts["lost"]}
            found = [number for number in found if number not in gone]
    return found


def _task(task: str) -> int:
    found = TASK.fullmatch(task)
    return int(found[1]) if found else 0


def _stranger(line: str, lost: Sequence[int], found: Sequence[int]) -> str:
    return (
        f"expected versions {list(lost)} of line {line!r} in the registry, found {list(found)}: "
        "this may be another database. Check MLFLOW_TRACKING_URI; if it was restored from a "
        f"backup, run `l2dm repair --line {line}`, which learns what is lost again"
    )
