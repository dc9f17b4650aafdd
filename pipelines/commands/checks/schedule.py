"""`l2dm schedule`: check a line's champion on a clock, end that, or tell the clock."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import (
    BASE,
    HOME,
    BaseOption,
    ConfigOption,
    HomeOption,
    JsonOption,
    LineOption,
    RunnerOption,
    SetOption,
)
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import Target, require_line

if TYPE_CHECKING:
    from l2dm.spec import Spec
    from pipelines.places.open import Runner


def schedule(  # noqa: PLR0913 - one parameter per option
    line: LineOption,
    cron: Annotated[
        str | None, typer.Option("--cron", help="Five fields, UTC, e.g. '0 3 * * *'.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the line's checks.")] = False,
    runner: RunnerOption = "local",
    config: ConfigOption = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the champion on a clock; without --cron, tell the clock.

    `l2dm dispatch` keeps it; with --runner cluster, a recurring run of Kubeflow Pipelines does.
    """
    target = Target(home, line, base, tuple(settings or ()))
    now = set_clock(target, "" if off else cron, Timekeeper(runner, config))
    if json:
        tell_json(now)
    elif now["cron"]:
        kept = f"by the {now['keeper']}, next {now['next']}"
        tell(f"{line}: checked at {now['cron']} (UTC) {kept}")
    else:
        tell(f"{line}: not checked on a clock; set one with --cron '0 3 * * *'")


@dataclass(frozen=True)
class Timekeeper:
    """Who keeps a line's clock: a dispatcher, or, for runner "cluster", that of an l2dm.toml."""

    runner: "Runner" = "local"
    config: Path | None = None


def set_clock(target: Target, cron: str | None, keeper: Timekeeper) -> dict[str, Any]:
    """Set, end ("") or only tell (None) when a line is checked, and who keeps the clock.

    Raises UnknownLine, BadSpec, BadSettings, PlatformError.
    """
    from components.services.line import checks
    from components.services.line.records import Records

    home, line = target.home, target.line
    require_line(home, line)
    checks.require_settings(target.settings)
    spec = target.spec  # a wrong setting is told now, not every night
    records = Records(home.store, line)
    before = records.state().checks.schedule
    if cron:
        checks.require_cron(cron)
    if cron is not None:
        where = "cluster" if keeper.runner == "cluster" else "dispatcher"
        if where == "cluster" or (before and before.keeper == "cluster"):
            _keep_on_cluster(target, cron if where == "cluster" else "", spec, keeper)
        facts: dict[str, Any] = {"settings": list(target.settings), "keeper": where}
        records.append("scheduled", line=line, cron=cron, **facts)
    now = records.state().checks.schedule
    return {
        "line": line,
        "cron": now.cron if now else "",
        "settings": list(now.settings) if now else [],
        "keeper": now.keeper if now else "",
        "next": now.upcoming().isoformat() if now else "",
    }


def _keep_on_cluster(target: Target, cron: str, spec: "Spec", keeper: Timekeeper) -> None:
    """Make the cluster's recurring run of a line, or end it (cron "")."""
    from pipelines.dispatcher.recurring_checks import check_of
    from pipelines.places.cluster import ClusterRuns, require_cluster
    from pipelines.places.open import read_settings

    home, base = target.home, target.base_name
    settings = read_settings(keeper.config)
    require_cluster(home, settings, base)
    runs = ClusterRuns(home, settings)
    if not cron:
        runs.end_repeating(target.line)
        return
    runs.repeat(target.line, cron, check_of(home, target.line, base, spec))
