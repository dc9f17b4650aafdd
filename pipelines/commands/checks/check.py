"""`l2dm check`: does the champion still draw what it drew when it was released?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import (
    BASE,
    HOME,
    REGRESSED,
    BaseOption,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import Target, require_base, require_line

if TYPE_CHECKING:
    from pipelines.places.run_here import Listener


def check(
    line: LineOption,
    seed: Annotated[int, typer.Option("--seed", min=0, help="0: a fresh one.")] = 0,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Does the champion still draw what it drew? Recorded; exit code 3 when it has regressed."""
    from pipelines.commands.progress import watching

    target = Target(home, line, base, tuple(settings or ()))
    with watching(line) as listener:
        found = check_now(target, seed, listener)
    if json:
        tell_json(found)
    else:
        _tell(found)
    if found["health"] == "regressed":
        raise typer.Exit(REGRESSED)


def check_now(target: Target, seed: int, listener: "Listener") -> dict[str, Any]:
    """Run the pipeline `check_forgetting` on this machine; what it found.

    Raises UnknownLine, LineBusy, BadBase, RunFailed.
    """
    from components.services.line import checks
    from components.services.line.leases import Leases
    from components.services.line.records import Records
    from l2dm import doors
    from l2dm.files import manifest
    from l2dm.spec import to_json
    from pipelines.places.run_here import Job, run_local

    home, line = target.home, target.line
    require_line(home, line)
    require_base(target.base_name)
    records = Records(home.store, line)
    checks.require_champion(line, records.state().standing.champion)
    spec = to_json(target.spec)
    with Leases(home.store).held(line) as keeper:
        fence = keeper.lease(line).fence
        job = Job(line, checks.CONCEPT, target.base_name, spec, home, fence, seed=seed)
        door = manifest.read(run_local(job, listener).release, doors.Check)
    state = records.state()
    version = max(number for number, one in state.checks.found.items() if one.digest == door.digest)
    return {
        "line": line,
        "version": version,
        "champion": state.standing.champion,
        "seed": door.record.seed,
        "health": door.record.health,
        "cause": door.record.cause,
        "reasons": list(door.record.reasons),
        "concepts": [one.sentence for one in door.record.findings],
    }


def _tell(found: Mapping[str, Any]) -> None:
    """What a check found, one sentence a concept, and what followed."""
    cause = f" (cause: {found['cause']})" if found["cause"] else ""
    tell(f"{found['line']}: version {found['version']} is {found['health']}{cause}")
    for sentence in dict.fromkeys((*found["reasons"], *found["concepts"])):
        tell(f"  - {sentence}")
    if found["champion"] != found["version"]:
        tell(f"version {found['champion']} is the champion now; see `l2dm history`")
