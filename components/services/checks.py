"""Checks in a line's records: what is scheduled, what runs, what was found.

`scheduled` sets or ends a line's clock, `checking` names the run that examines the champion,
`checked` holds what it found, `unchecked` gives it back after a run that failed. A due check is
known by its seed, which follows from line and instant, so that it is examined once however often
anybody looks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from components.services.records import Event, standing
from l2dm.errors import BadSpec, UnknownLine

CONCEPT = "_check"  # where a check's costs and log lie; no concept's name begins like that


@dataclass(frozen=True)
class Schedule:
    """A line's clock: cron expression (UTC), settings of the spec, since when, and who keeps it.

    keeper: "dispatcher", or "cluster" where Kubeflow Pipelines starts the checks by itself.
    """

    cron: str
    settings: tuple[str, ...]
    since: datetime
    keeper: str = "dispatcher"


@dataclass(frozen=True)
class Checking:
    """A check that was started and has not ended. fence: number of the lease it runs under."""

    run: str
    seed: int
    attempt: int
    fence: int


def require_cron(cron: str) -> None:
    """Raises BadSpec with what is wrong with a cron expression of five fields."""
    from cronsim import CronSim, CronSimError

    try:
        CronSim(cron, datetime.now(UTC))
    except CronSimError as error:
        raise BadSpec(
            f"cron: expected five fields such as '0 3 * * *' (every night at three, UTC), found "
            f"{cron!r} ({error})"
        ) from error


def require_champion(events: Sequence[Event], line: str) -> int:
    """The version that can be checked. Raises UnknownLine."""
    version = standing(events).champion
    if not version:
        raise UnknownLine(
            f"expected line {line!r} to have a champion, found none; learn a concept first, see "
            "`l2dm status`"
        )
    return version


def schedule(events: Sequence[Event]) -> Schedule | None:
    """The clock that holds now; None when there is none, or when it was ended."""
    for event in reversed(events):
        if event.kind == "scheduled":
            facts = event.facts
            if not facts["cron"]:
                return None
            since, keeper = _instant(facts["at"]), facts.get("keeper", "dispatcher")
            return Schedule(facts["cron"], tuple(facts["settings"]), since, keeper)
    return None


def upcoming(clock: Schedule) -> datetime:
    """The next instant of a clock."""
    from cronsim import CronSim

    instant: datetime = next(CronSim(clock.cron, datetime.now(UTC)))
    return instant


def due(events: Sequence[Event], line: str, now: float) -> int | None:
    """The seed of the check that the dispatcher should have begun by `now`; None when none should.

    now: Unix seconds. Of several instants that were missed only the last counts. A line without
    champion has nothing to check.
    """
    from cronsim import CronSim

    clock = schedule(events)
    if clock is None or clock.keeper != "dispatcher" or not standing(events).champion:
        return None
    end = datetime.fromtimestamp(now, UTC) + timedelta(seconds=1)  # going back leaves out the start
    instant = next(CronSim(clock.cron, end, reverse=True))
    if instant <= clock.since:
        return None
    seed = seed_of(line, instant)
    done = any(event.kind == "checked" and event.facts["seed"] == seed for event in events)
    return None if done else seed


def seed_of(line: str, instant: datetime) -> int:
    """Seed of a check's fresh pictures, [0, 2^28): the same for everybody who looks."""
    text = f"{line} {instant.astimezone(UTC).isoformat()}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def checking(events: Sequence[Event]) -> Checking | None:
    """The check that runs now; None when none was begun since the last one ended."""
    now: Checking | None = None
    for event in events:
        facts = event.facts
        if event.kind == "checking":
            now = Checking(facts["run"], facts["seed"], facts["attempt"], facts["fence"])
        elif event.kind in ("checked", "unchecked") and now and facts["seed"] == now.seed:
            now = None
    return now


def failures(events: Sequence[Event], seed: int) -> tuple[Event, ...]:
    """Runs of one check that failed."""
    return tuple(e for e in events if e.kind == "unchecked" and e.facts["seed"] == seed)


def found(events: Sequence[Event], version: int) -> Mapping[str, Any] | None:
    """What the last check of a version found; None when it never was checked."""
    for event in reversed(events):
        if event.kind == "checked" and event.facts["version"] == version:
            return event.facts
    return None


def former_champions(events: Sequence[Event], version: int) -> tuple[int, ...]:
    """Champions before that version came to be it, the latest first, each once.

    Those that a rollback left behind are none: somebody or something decided against them.
    """
    line: list[int] = []
    for event in events:
        if event.kind not in ("promotion", "rollback"):
            continue
        target = event.facts["target"]
        if target in line:  # back to it: what came after is left behind
            line = line[: line.index(target)]
        line.append(target)
    if version in line:
        line = line[: line.index(version)]
    return tuple(reversed(line))


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
