"""After a restore: what only the records know, or only the registry, is dropped and reported.

A bucket and a database come back from backups of different minutes. Where the database is older,
the records name versions that do not exist: they are dropped, their uploads wait again, and the
champion is the last one that does exist. Where the bucket is older, the registry holds versions of
tasks that the records never began: they stay there, without alias and without successor. Either
way one event, `restored`, says what was dropped, and while the line has not gone on since,
`take_back` undoes it with another.

A version is dropped only when its store answers that it is not there. One that cannot be looked at
(an error, a time-out, a disk that is not mounted) is an error here, and nothing is dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from components.services.line.ledger import TASK, Event, Ledger, summed
from components.services.line.records import Records
from components.services.tracking.registry import Registry, Version
from l2dm.errors import Conflict, L2dmError

MOVES = (  # what goes on after a repair
    *("promotion", "rollback", "forgotten", "started", "begun", "restored", "expunged"),
)


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
    only_look: bool = False,
) -> Dropped | None:
    """Make records and registry agree; what was dropped, None when they did.

    The caller holds the line, unless it will only look at what would be dropped. loads: whether a
    version's files are there; it raises what keeps it from finding out. unasked: nobody has said
    that there was a restore, so a registry that knows nothing of the line is taken for another one;
    raises L2dmError then.
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
        if only_look:
            return Dropped(lost, unknown, facts["champion"])
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


def take_back(
    registry: Registry, records: Records, line: str, loads: Callable[[int], bool]
) -> tuple[int, ...]:
    """Undo the last `restored`: the versions that it dropped, as they were; they are there again.

    The caller holds the line. loads: see `restore`. Raises L2dmError when nothing was dropped, when
    one is still not there, or when the line has gone on since.
    """
    while True:
        events = records.events()
        last = events[-1].number if events else 0
        undone = _undoable(line, events)
        before = summed([one for one in events if one.number < undone.number])
        lost = {one["version"]: one["task"] for one in undone.facts["lost"]}
        registry.adopt(line, _unknown_to(registry, line, lost))
        tasks = {one.number: one.facts.task for one in registry.versions(line)}
        for number, task in sorted(lost.items()):
            if tasks.get(number) != task or not loads(number):
                raise L2dmError(_still_gone(line, number))
        states = [one for one in before.concepts.values() if one.version in lost]
        now = before.standing
        try:
            records.append_next(
                last,
                "restored",
                lost=[],
                unknown=[],
                champion=now.champion,
                previous=now.previous,
                challenger=now.challenger,
                tasks=max(before.tasks, records.state().tasks),
                versions={str(number): task for number, task in sorted(lost.items())},
                back=[asdict(state) for state in states],
            )
        except Conflict:
            continue
        return tuple(sorted(lost))


def _unknown_to(registry: Registry, line: str, tasks: Mapping[int, str]) -> dict[int, str]:
    """Those of the versions that the registry does not have."""
    there = {one.number: one.facts.task for one in registry.versions(line)}
    return {number: task for number, task in tasks.items() if there.get(number) != task}


def find_again(registry: Registry, records: Records, line: str) -> tuple[int, ...]:
    """Register versions of which the registry knows nothing any more, and the files are here."""
    return registry.adopt(line, _unknown_to(registry, line, records.state().versions))


def _undoable(line: str, events: Sequence[Event]) -> Event:
    """The event that dropped versions last. Raises L2dmError when the line has gone on since."""
    for event in reversed(events):
        if event.kind == "restored" and event.facts["lost"]:
            return event
        if event.kind in MOVES:
            raise L2dmError(
                f"expected line {line!r} as the last repair left it, found that it has gone on "
                f"since (event {event.number}, {event.kind!r}); versions that are there again are "
                "named by `l2dm history`, and `l2dm rollback` makes one the champion"
            )
    raise L2dmError(
        f"expected a repair of line {line!r} that dropped versions, found none: there is nothing "
        f"to take back, see `l2dm history --line {line}`"
    )


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
    for number in reversed(champions(records.events())):
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
    there = [number for number in champions(events) if number not in lost]
    if lost:
        champion = there[-1] if there else 0
        previous = next((one for one in reversed(there) if one != champion), 0)
    else:
        champion, previous = now.champion, now.previous
    challenger = 0 if now.challenger in lost else now.challenger
    names = {"champion": champion, "previous": previous, "challenger": challenger}
    return names | {"tasks": max(ledger.tasks, highest)}


def champions(events: Sequence[Event]) -> list[int]:
    """Every champion that the line ever had, in order; a restore takes some of them away."""
    found: list[int] = []
    dropped: list[int] = []
    for event in events:
        if event.kind in ("promotion", "rollback", "forgotten"):
            found.append(event.facts["target"])
        elif event.kind == "restored":
            gone = {one["version"] for one in event.facts["lost"]}
            dropped += [number for number in found if number in gone]
            found = [number for number in found if number not in gone]
            back = {int(number) for number in event.facts.get("versions", ())}
            found += [number for number in dropped if number in back]
            dropped = [number for number in dropped if number not in back]
    return found


def _task(task: str) -> int:
    found = TASK.fullmatch(task)
    return int(found[1]) if found else 0


def _still_gone(line: str, number: int) -> str:
    return (
        f"expected version {number} of line {line!r} and its files in the registry again, found "
        "that they are still missing; bring them back from a backup first"
    )


def _stranger(line: str, lost: Sequence[int], found: Sequence[int]) -> str:
    return (
        f"expected versions {list(lost)} of line {line!r} in the registry, found {list(found)}: "
        "this may be another database. Check MLFLOW_TRACKING_URI and bring the right one back; if "
        f"this is the right one, run `l2dm repair --line {line}`, which learns what is lost again"
    )
