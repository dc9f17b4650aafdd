"""The dispatcher's clock: checks of champions that are due, one run at a time on a line."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from components.runtime.recipes import checked_on
from components.services.line.checks import CONCEPT, RunningCheck
from components.services.line.leases import Lease
from components.services.line.ledger import Ledger, Started
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.store.home import Home
from l2dm.errors import BadSpec
from l2dm.spec import from_json, override, to_json
from pipelines.places.run_here import Job
from pipelines.places.runs import Look, Runs, Starter, check_name

log = logging.getLogger(__name__)

CheckMoved = Literal["checking", "retried", "unchecked"]


@dataclass(frozen=True)
class CheckRetries:
    """Runs of one check before it is given up until its next instant.

    backoff: seconds before the second, doubled for each further one.
    """

    attempts: int
    backoff: float


class DueChecks:
    """Starts checks and settles them. The caller holds the line's lease."""

    def __init__(
        self,
        home: Home,
        runs: Runs,
        base: str,
        spec: str,
        retries: CheckRetries,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._home, self._runs, self._base, self._spec = home, runs, base, spec
        self._retries, self._clock = retries, clock
        self._starter = Starter(runs)

    def due(self, line: str, ledger: Ledger) -> int | None:
        """The seed of a check that should be started now; None when none should."""
        now, checks = self._clock(), ledger.checks
        seed = checks.due(line, ledger.standing.champion, now)
        if seed is None or not checks.failures(seed):
            return seed
        assert checks.failed is not None
        given_up = checks.failed.count >= self._retries.attempts
        return None if given_up or now < checks.failed.not_before else seed

    def start(
        self, line: str, seed: int, lease: Lease, ledger: Ledger, records: Records
    ) -> Started | CheckMoved:
        """Record the run, then start it. Raises Conflict when something was recorded since.

        Where the clock's settings do not go with ours there is no run: the check is given back.
        """
        attempt, clock = 1 + ledger.checks.failures(seed), ledger.checks.schedule
        run = RunningCheck(check_name(line, seed, attempt), seed, attempt, lease.fence)
        try:
            spec = override(from_json(self._spec), clock.settings if clock else ())
        except BadSpec as error:
            why = Failure("start", type(error).__name__, tuple(error.problems))
            return self._give_back(line, run, Look("failed", why), ledger, records)
        base = checked_on(self._home, line, ledger, self._base)
        job = Job(line, CONCEPT, base, to_json(spec), self._home, lease.fence, seed=seed)
        records.append_next(ledger.last, "checking", line=line, **asdict(run))
        self._starter.start(run.run, job)
        return Started(CONCEPT, "", run.run, attempt, lease.fence)

    def settle(self, line: str, lease: Lease, ledger: Ledger, records: Records) -> CheckMoved:
        """Look at the check that runs; it has recorded nothing yet."""
        run = ledger.checks.running
        assert run is not None
        look = self._runs.look(run.run)
        if look.state == "running" and run.fence == lease.fence:
            return "checking"
        if look.state == "running":
            self._runs.stop(run.run)  # of a dispatcher that was taken for dead
            look = Look("failed", text="the dispatcher that watched it was not heard of")
        if look.state == "absent":
            look = Look("failed", self._starter.why_absent(line, run.run))
        return self._give_back(line, run, look, ledger, records)

    def _give_back(
        self, line: str, run: RunningCheck, look: Look, ledger: Ledger, records: Records
    ) -> CheckMoved:
        """Record why a run of a check found nothing. Raises Conflict, as `start`."""
        step = look.failure.step if look.failure else None
        reasons = look.failure.problems if look.failure else (look.text or "it found nothing",)
        records.append_next(
            ledger.last,
            "unchecked",
            line=line,
            run=run.run,
            seed=run.seed,
            step=step,
            reasons=list(reasons),
            not_before=self._clock() + self._retries.backoff * 2 ** (run.attempt - 1),
        )
        last = run.attempt >= self._retries.attempts
        level = logging.ERROR if last else logging.WARNING
        log.log(level, "line %s: check %s failed: %s", line, run.run, "; ".join(reasons))
        return "unchecked" if last else "retried"


def tell(line: str, ledger: Ledger) -> None:
    """Say in the log what the last check found, if somebody has to look at it."""
    found = ledger.checks.found
    version = max(found, key=lambda number: found[number].number, default=0)
    if not version or found[version].health == "healthy":
        return
    champion, last = ledger.standing.champion, found[version]
    log.warning(
        "line %s: version %s is %s (cause: %s): %s%s",
        line,
        version,
        last.health,
        last.cause,
        "; ".join(last.reasons),
        "" if champion == version else f"; version {champion} is the champion now",
    )
