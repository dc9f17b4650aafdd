"""Checks whose clock Kubeflow Pipelines keeps: a recurring run per line, as this dispatcher has it.

A recurring run is pinned to one version of the pipeline, which names one image, and to one base
and spec. After an upgrade it would go on with those of before, so a dispatcher that starts renews
it.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from components.runtime.recipes import checked_on
from components.services.line import checks
from components.services.line.checks import Schedule
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.errors import L2dmError, words
from l2dm.spec import Spec, override, to_json
from pipelines.places.run_here import Job

log = logging.getLogger(__name__)

TOGETHER = 16  # lines whose records are read at once


@runtime_checkable
class Repeats(Protocol):
    """A place that keeps clocks of its own: ClusterRuns."""

    def repeat(self, line: str, cron: str, job: Job) -> bool:
        """See ClusterRuns."""
        ...


def check_of(home: Home, line: str, base: str, spec: Spec) -> Job:
    """What a recurring run does. No lease, no seed: every time it is given the same arguments."""
    return Job(line, checks.CONCEPT, base, to_json(spec), home, 0, seed=0)


def renew(
    home: Home, base: str, spec: Spec, records: Callable[[str], Records], runs: Repeats
) -> None:
    """Let every check on the cluster's clock run as a check that we started would.

    base: load name of what a line is checked on that names no base of its own. spec: but for the
    settings of each clock. Nothing is made where one does so already. What cannot be read or
    renewed is told and goes on as it was; the next dispatcher to start tries again.
    """

    def clock(line: str) -> Schedule | None:
        try:
            return records(line).state().checks.schedule
        except (L2dmError, OSError) as error:
            log.error("line %s: its check on the cluster is not looked at: %s", line, words(error))
            return None

    lines = home.lines()
    with ThreadPoolExecutor(TOGETHER) as pool:
        found = tuple(pool.map(clock, lines))
    for line, schedule in zip(lines, found, strict=True):
        if schedule is None or schedule.keeper != "cluster":
            continue
        try:
            chosen = override(spec, schedule.settings)
            own = checked_on(home, line, records(line).known, base)
            job = check_of(home, line, own, chosen)
            if runs.repeat(line, schedule.cron, job):
                log.info("line %s: its check on the cluster was renewed", line)
        except (L2dmError, OSError) as error:
            log.error("line %s: its check on the cluster goes on as it was: %s", line, words(error))
