"""`l2dm repair`: after a restore from backups, make records and registry agree."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from components.services.store.home import Home
from l2dm.errors import L2dmError, system_words
from pipelines.commands.options import FAILED, HOME, HomeOption, JsonOption
from pipelines.commands.output import note, tell, tell_json
from pipelines.commands.target import chosen_lines, open_registry

if TYPE_CHECKING:
    from components.services.line.after_backup import Dropped


def repair(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Drop what is lost without asking.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back what the last repair of the line dropped.")
    ] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """After a restore from backups: make records and registry agree, ask before one is dropped."""
    found, failed = repair_lines(Home.at(home), line, yes=yes, undo=undo)
    if json:
        tell_json({"lines": found, "failed": failed})
    else:
        for name, dropped in found.items():
            tell(f"{name}: {dropped or 'records and registry agree'}")
        for name, why in failed.items():
            note(f"error: {name} is left as it is: {why}")
    if failed:
        raise typer.Exit(FAILED)


def repair_lines(
    home: Home, line: str | None, *, yes: bool = False, undo: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Make every line, or one, agree with the registry.

    Returns what was done with each, "" if nothing, and why others were left alone. yes: drop what
    is lost without asking. undo: take back what was dropped instead.
    """
    from components.services.tracking import database
    from components.services.tracking.connection import server
    from pipelines.dispatcher import repair as lines_repair

    lines, found, failed = chosen_lines(home, line), dict[str, str](), dict[str, str]()
    if server() is None and not home.bucket:
        database.make(home)  # of one that is lost; what is left of its versions is found again
    registry = open_registry(home)
    for name in lines:
        try:
            if undo:
                back = lines_repair.undo(home, registry, name)
                found[name] = f"versions that are there again: {list(back)}"
                continue
            dropped = lines_repair.repair_line(
                home,
                registry,
                name,
                named=line is not None,
                agreed=lambda lost, name=name: yes or _agreed(name, lost),  # type: ignore[misc]
            )
            found[name] = str(dropped or "")
        except L2dmError as error:
            failed[name] = str(error)
        except OSError as error:
            failed[name] = system_words(error)
    return found, failed


def _agreed(line: str, lost: "Dropped") -> bool:
    """Whether the person at the terminal lets it go; without one, nobody does."""
    note(f"{line}: this would be dropped: {lost}")
    if not sys.stdin.isatty():
        note("nobody can be asked here: run it again with --yes to drop it")
        return False
    return typer.confirm("Drop it? `l2dm repair --undo` takes it back", err=True)
