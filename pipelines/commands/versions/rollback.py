"""`l2dm rollback`: make an older version the champion again."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from l2dm.errors import FilesGone
from pipelines.commands.options import BASE, HOME, BaseOption, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import Target, require_line

ANOTHER = "name another one with --to, see `l2dm status`, or bring its files back from a backup"


def rollback(
    line: LineOption,
    to: Annotated[str, typer.Option("--to", help="Alias or number.")] = "previous",
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    json: JsonOption = False,
) -> None:
    """Make an older version the champion again, after loading it once."""
    before, now = make_champion(Target(home, line, base), to)
    if json:
        tell_json({"line": line, "champion": now, "previous": before})
    else:
        tell(f"{line}: version {now} is the champion again, version {before} is previous")


def make_champion(target: Target, to: str) -> tuple[int, int]:
    """Make another version the champion; returns the one before and the one now.

    Raises UnknownLine, LineBusy, BadBase, DoesNotFit; BadDoor, FilesGone for one that is damaged.
    """
    from components.runtime.line_report import renew_report, tell_champion
    from components.services.line import status_cache
    from components.services.line.leases import Leases
    from components.services.line.promotion import roll_back
    from components.services.line.records import Records
    from components.services.tracking.registry import require_whole
    from l2dm.releases.load import load_release

    require_line(target.home, target.line)
    home, line, registry = target.home, target.line, target.registry()
    version, base = target.resolve(registry, to), target.local_base()

    def check(number: int, release: Path) -> None:
        require_whole(release, line, number, ANOTHER)
        load_release(release, base)

    with Leases(home.store).held(line), tempfile.TemporaryDirectory() as scratch:
        records = Records(home.store, line)
        with status_cache.changing(home, registry, line):
            try:
                into = Path(scratch) / "release"
                before = roll_back(registry, records, line, version, check, into)
            except FilesGone as error:
                raise FilesGone(f"{error}; {ANOTHER}") from error
        index = status_cache.refresh(home, registry, line)
        tell_champion(registry, line, index)
        replaced = next((one.facts.task for one in index.versions if one.number == before), "")
        renew_report(home, registry, line, replaced)
    return before, version
