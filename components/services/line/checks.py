"""Checks in a line's records: what is scheduled, what runs, what was found.

A check draws with a line's champion what it drew at its release. `scheduled` sets or ends the
line's clock, `checking` names the run of a check, `checked` holds what it found, `unchecked` gives
it back after a run that failed. A due check is known by its seed, which follows from line and
instant, so that it is made once however often anybody looks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from l2dm.errors import BadSpec, UnknownLine

CONCEPT = "_check"  # where a check's costs and log lie; no concept's name begins like that
REMEMBERED = 8  # latest seeds that were answered
# What a check reads of a spec: it draws with the release's own sampling, and learns nothing.
READ = ("check.", "evaluate.budget", "evaluate.distractors", "evaluate.pictures")


@dataclass(frozen=True)
class Schedule:
    """A line's clock: cron expression (UTC), settings of the spec, since when, and who keeps it.

    keeper: "dispatcher", or "cluster" where Kubeflow Pipelines starts the checks by itself.
    """

    cron: str
    settings: tuple[str, ...]
    since: str
    keeper: str = "dispatcher"

    def upcoming(self) -> datetime:
        """The next instant."""
        from cronsim import CronSim

        instant: datetime = next(CronSim(self.cron, datetime.now(UTC)))
        return instant


@dataclass(frozen=True)
class RunningCheck:
    """A check that was started and has not ended. fence: number of the lease it runs under."""

    run: str
    seed: int
    attempt: int
    fence: int


@dataclass(frozen=True)
class FailedCheck:
    """Runs of one check that failed: how many, and when (Unix seconds) it may be tried again."""

    seed: int
    count: int
    not_before: float


@dataclass(frozen=True)
class LastCheck:
    """What the last check of a version found. number: which of the line's checks it was."""

    number: int
    seed: int
    digest: str
    at: str
    health: str
    cause: str
    reasons: tuple[str, ...]


@dataclass
class Checks:
    """The sum of a line's events as far as they concern checks.

    last: whether the run that was started last was a check. since: when the line got its first
    champion, "" where that is not known: before, there was nothing to check.
    """

    schedule: Schedule | None = None
    running: RunningCheck | None = None
    failed: FailedCheck | None = None
    count: int = 0
    answered: tuple[int, ...] = ()
    found: dict[int, LastCheck] = field(default_factory=dict)
    last: bool = False
    since: str = ""

    def add(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Take the next event. Raises KeyError, TypeError, ValueError for one that is none."""
        if kind == "started":
            self.last = False
        elif kind == "scheduled":
            keeper = facts.get("keeper", "dispatcher")
            clock = Schedule(facts["cron"], tuple(facts["settings"]), facts["at"], keeper)
            self.schedule = clock if clock.cron else None
        elif kind == "checking":
            self.running = RunningCheck(
                facts["run"], facts["seed"], facts["attempt"], facts["fence"]
            )
            self.last = True
        elif kind in ("checked", "unchecked"):
            self._end(kind, facts)
        elif kind == "promotion":
            self.since = self.since or facts.get("at", "")

    def due(self, line: str, champion: int, now: float) -> int | None:
        """The seed of the check that the dispatcher should have begun by `now`; None: none.

        now: Unix seconds. Of several instants that were missed only the last counts. A line without
        champion (0) has nothing to check.
        """
        from cronsim import CronSim

        clock = self.schedule
        if clock is None or clock.keeper != "dispatcher" or not champion:
            return None
        end = datetime.fromtimestamp(int(now), UTC) + timedelta(seconds=1)  # it is left out
        instant = next(CronSim(clock.cron, end, reverse=True), None)
        if instant is None or instant <= _instant(clock.since):
            return None
        seed = seed_of(line, instant)
        return None if seed in self.answered else seed

    def found_last(self) -> float:
        """When a check last found something, whatever it was, in Unix seconds; 0: never."""
        latest = max(self.found.values(), key=lambda found: found.number, default=None)
        return _instant(latest.at).timestamp() if latest else 0.0

    def awaited(self, champion: int) -> float:
        """The first instant of the clock after the last check that found something, Unix seconds.

        It does not matter who keeps the clock, nor what became of runs that found nothing. 0 for a
        line without clock or champion. In the past: that check is late.
        """
        from cronsim import CronSim

        clock = self.schedule
        if clock is None or not champion:
            return 0.0
        since = [_instant(at) for at in (clock.since, self.since) if at]
        since.append(datetime.fromtimestamp(self.found_last(), UTC))
        instant = next(CronSim(clock.cron, max(since).astimezone(UTC)), None)
        return instant.timestamp() if instant else 0.0

    def failures(self, seed: int) -> int:
        """How many runs of one check failed."""
        return self.failed.count if self.failed and self.failed.seed == seed else 0

    def to_data(self) -> dict[str, Any]:
        """As JSON can hold it; `from_data` is the inverse."""
        data = asdict(self)
        return data | {"found": {str(number): one for number, one in data["found"].items()}}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError for something else."""
        clock, running, failed = data["schedule"], data["running"], data["failed"]
        return cls(
            Schedule(**{**clock, "settings": tuple(clock["settings"])}) if clock else None,
            RunningCheck(**running) if running else None,
            FailedCheck(**failed) if failed else None,
            int(data["count"]),
            tuple(data["answered"]),
            {
                int(number): LastCheck(**{**one, "reasons": tuple(one["reasons"])})
                for number, one in data["found"].items()
            },
            bool(data["last"]),
            str(data["since"]),
        )

    def _end(self, kind: str, facts: Mapping[str, Any]) -> None:
        seed = facts["seed"]
        if self.running and self.running.seed == seed:
            self.running = None
        if kind == "unchecked":
            self.failed = FailedCheck(seed, self.failures(seed) + 1, float(facts["not_before"]))
            return
        self.count += 1
        self.answered = (*self.answered, seed)[-REMEMBERED:]
        self.found[facts["version"]] = LastCheck(
            self.count,
            seed,
            facts["digest"],
            facts["at"],
            facts["health"],
            facts["cause"],
            tuple(facts["reasons"]),
        )


def _instant(at: str) -> datetime:
    return datetime.strptime(at, "%Y-%m-%dT%H:%M:%S%z")


def require_cron(cron: str) -> None:
    """Raises BadSpec with what is wrong with a cron expression of five fields."""
    from cronsim import CronSim, CronSimError

    try:
        if len(cron.split()) != 5:
            raise CronSimError(f"{len(cron.split())} fields")
        if next(CronSim(cron, datetime.now(UTC)), None) is None:
            raise CronSimError("no such instant")
    except CronSimError as error:
        raise BadSpec(
            f"cron: expected five fields such as '0 3 * * *' (every night at three, UTC), found "
            f"{cron!r} ({error})"
        ) from error


def require_settings(settings: Sequence[str]) -> None:
    """Refuse settings that no check reads: a clock would hold them against every dispatcher's own.

    settings: `section.key=value`. Raises BadSpec, naming each of them.
    """
    keys = {setting: setting.partition("=")[0] for setting in settings}
    if foreign := [setting for setting, key in keys.items() if not key.startswith(READ)]:
        known = ", ".join(f"{key}*" if key.endswith(".") else key for key in READ)
        raise BadSpec(
            [
                f"setting {setting!r}: expected one that a check reads ({known}), found another; "
                "leave it out"
                for setting in foreign
            ]
        )


def require_champion(line: str, champion: int) -> int:
    """The version that can be checked. Raises UnknownLine when there is none (0)."""
    if not champion:
        raise UnknownLine(
            f"expected line {line!r} to have a champion, found none; learn a concept first, see "
            "`l2dm status`"
        )
    return champion


def seed_of(line: str, instant: datetime) -> int:
    """Seed of a check's fresh pictures, [0, 2^28): the same for everybody who looks."""
    text = f"{line} {instant.astimezone(UTC).isoformat()}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)
