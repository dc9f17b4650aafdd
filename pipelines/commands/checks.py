"""Checks of champions as commands: now, on a clock, and what the last one found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.services.line import checks
from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm import doors
from l2dm.files import manifest
from l2dm.spec import Spec, to_json
from pipelines.commands.operations import Place, require_base, require_line
from pipelines.dispatcher.recurring_checks import check_of
from pipelines.places.open import Runner, read_settings
from pipelines.places.run_here import Job, Listener, run_local


def check_now(place: Place, seed: int, listener: Listener) -> dict[str, Any]:
    """Run the pipeline `check_forgetting` on this machine; what it found.

    Raises UnknownLine, LineBusy, BadBase, RunFailed.
    """
    home, line = place.home, place.line
    require_line(home, line)
    require_base(place.base_name)
    records = Records(home.store, line)
    checks.require_champion(line, records.state().standing.champion)
    spec = to_json(place.spec)
    with Leases(home.store).held(line) as keeper:
        fence = keeper.lease(line).fence
        job = Job(line, checks.CONCEPT, place.base_name, spec, home, fence, seed=seed)
        door = manifest.read(run_local(job, listener).release, doors.Check)
    found = records.state().checks.found
    version = max(number for number, one in found.items() if one.digest == door.digest)
    return {
        "line": line,
        "version": version,
        "champion": records.state().standing.champion,
        "seed": door.record.seed,
        "health": door.record.health,
        "cause": door.record.cause,
        "reasons": list(door.record.reasons),
        "concepts": [one.sentence for one in door.record.findings],
    }


@dataclass(frozen=True)
class Timekeeper:
    """Who keeps a line's clock: a dispatcher, or, for runner "cluster", that of an l2dm.toml."""

    runner: Runner = "local"
    config: Path | None = None


def set_clock(place: Place, cron: str | None, keeper: Timekeeper) -> dict[str, Any]:
    """Set, end ("") or only tell (None) when a line is checked, and who keeps the clock.

    Raises UnknownLine, BadSpec, BadSettings, PlatformError.
    """
    home, line = place.home, place.line
    require_line(home, line)
    spec = place.spec  # a wrong setting is told now, not every night
    records = Records(home.store, line)
    before = records.state().checks.schedule
    if cron:
        checks.require_cron(cron)
    if cron is not None:
        where = "cluster" if keeper.runner == "cluster" else "dispatcher"
        if where == "cluster" or (before and before.keeper == "cluster"):
            _keep_on_cluster(place, cron if where == "cluster" else "", spec, keeper)
        facts: dict[str, Any] = {"settings": list(place.settings), "keeper": where}
        records.append("scheduled", line=line, cron=cron, **facts)
    now = records.state().checks.schedule
    return {
        "line": line,
        "cron": now.cron if now else "",
        "settings": list(now.settings) if now else [],
        "keeper": now.keeper if now else "",
        "next": now.upcoming().isoformat() if now else "",
    }


def _keep_on_cluster(place: Place, cron: str, spec: Spec, keeper: Timekeeper) -> None:
    """Make the cluster's recurring run of a line, or end it (cron "")."""
    from pipelines.places.cluster import ClusterRuns, require_cluster

    home, base = place.home, place.base_name
    settings = read_settings(keeper.config)
    require_cluster(home, settings, base)
    runs = ClusterRuns(home, settings)
    if not cron:
        runs.end_repeating(place.line)
        return
    runs.repeat(place.line, cron, check_of(home, place.line, base, spec))


def last_checks(folder: str | Path) -> dict[str, str]:
    """What the last check of each line's champion found, in a sentence."""
    home = Home.at(folder)
    told: dict[str, str] = {}
    for line in home.lines():
        ledger = Records(home.store, line).state()
        champion = ledger.standing.champion
        last = ledger.checks.found.get(champion)
        if last:
            told[line] = f"version {champion} was checked {last.at}: {last.health}"
    return told
