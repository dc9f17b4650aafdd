"""The dispatcher's clock: checks of champions that are due, one run at a time on a line."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from components.services.checks import CONCEPT, Checking, due, failures, schedule
from components.services.home import Home
from components.services.leases import Lease
from components.services.records import Event, Records, Started, standing
from l2dm.spec import from_json, override, to_json
from pipelines.runs import Look, Runs, check_name
from pipelines.submit import Job

log = logging.getLogger(__name__)

Checked = Literal["checking", "retried", "unchecked"]


class Clock:
    """Starts checks and settles them. The caller holds the line's lease.

    attempts: runs of one check before it is given up until its next instant; backoff: seconds
    before the second, doubled for each further one.
    """

    def __init__(
        self,
        home: Home,
        runs: Runs,
        base: str,
        spec: str,
        *,
        attempts: int,
        backoff: float,
        clock: Callable[[], float],
    ) -> None:
        self._home, self._runs, self._base, self._spec = home, runs, base, spec
        self._attempts, self._backoff, self._clock = attempts, backoff, clock

    def due(self, line: str, events: Sequence[Event]) -> int | None:
        """The seed of a check that should be started now; None when none should."""
        seed = due(events, line, self._clock())
        if seed is None:
            return None
        failed = failures(events, seed)
        if len(failed) >= self._attempts:
            return None
        return None if failed and self._clock() < failed[-1].facts["not_before"] else seed

    def start(
        self, line: str, seed: int, lease: Lease, events: Sequence[Event], records: Records
    ) -> Started:
        """Record the run, then start it. Raises Conflict when something was recorded since."""
        attempt = 1 + len(failures(events, seed))
        name = check_name(line, seed, attempt)
        records.append_next(
            events[-1].number,
            "checking",
            line=line,
            run=name,
            seed=seed,
            attempt=attempt,
            fence=lease.fence,
        )
        clock = schedule(events)
        spec = override(from_json(self._spec), clock.settings if clock else ())
        job = Job(line, CONCEPT, self._base, to_json(spec), self._home, lease.fence, seed=seed)
        self._runs.start(name, job)
        return Started(CONCEPT, "", name, attempt, lease.fence)

    def settle(
        self, line: str, run: Checking, lease: Lease, events: Sequence[Event], records: Records
    ) -> Checked:
        """Look at a run that has recorded nothing yet."""
        look = self._runs.look(run.run)
        if look.state == "running" and run.fence == lease.fence:
            return "checking"
        if look.state == "running":
            self._runs.stop(run.run)  # of a dispatcher that was taken for dead
            look = Look("failed", text="the dispatcher that watched it was not heard of")
        step = look.failure.step if look.failure else None
        reasons = look.failure.problems if look.failure else (look.text or "it found nothing",)
        records.append_next(
            events[-1].number,
            "unchecked",
            line=line,
            run=run.run,
            seed=run.seed,
            step=step,
            reasons=list(reasons),
            not_before=self._clock() + self._backoff * 2 ** (run.attempt - 1),
        )
        last = run.attempt >= self._attempts
        level = logging.ERROR if last else logging.WARNING
        log.log(level, "line %s: check %s failed: %s", line, run.run, "; ".join(reasons))
        return "unchecked" if last else "retried"


def tell(line: str, events: Sequence[Event]) -> None:
    """Say in the log what the last check found, if somebody has to look at it."""
    last = next((event for event in reversed(events) if event.kind == "checked"), None)
    if last is None or last.facts["health"] == "healthy":
        return
    facts: Mapping[str, object] = last.facts
    now = standing(events).champion
    log.warning(
        "line %s: version %s is %s (cause: %s): %s%s",
        line,
        facts["version"],
        facts["health"],
        facts["cause"],
        "; ".join(last.facts["reasons"]),
        "" if now == facts["version"] else f"; version {now} is the champion now",
    )
