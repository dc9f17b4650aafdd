"""`l2dm repair`: after a restore from backups, make records and registry agree."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from components.services.store.home import Home
from l2dm.errors import L2dmError, words
from pipelines.commands.options import FAILED, HOME, HomeOption, JsonOption
from pipelines.commands.output import note, tell, tell_json
from pipelines.commands.target import chosen_lines, open_registry

if TYPE_CHECKING:
    from components.services.line.after_backup import Dropped


def repair(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Drop what is lost without asking.")] = False,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Take back the last repair: the versions that it dropped count again, once their "
            "files are back and while the line has learned nothing since.",
        ),
    ] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """After a restore from backups: make records and registry agree, ask before one is dropped.

    Every champion's files are read. One that is damaged stays, is told, and the exit code is 1.
    """
    found, failed = repair_lines(Home.at(home), line, yes=yes, undo=undo)
    if json:
        tell_json({"lines": found, "failed": failed})
    else:
        for name, done in found.items():
            tell(f"{name}: {done or 'records and registry agree'}")
        for name, why in failed.items():
            left = "" if name in found else " is left as it is"
            note(f"error: {name}{left}: {why}")
    if failed:
        raise typer.Exit(FAILED)


def repair_lines(
    home: Home, line: str | None, *, yes: bool = False, undo: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Make every line, or one, agree with the registry.

    Returns what was done with each, "" if nothing, and what is wrong with others: they were left
    alone, or their champion is damaged. yes: drop what is lost without asking. undo: take back what
    was dropped instead.
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
                found[name] = _back(back)
                lines_repair.require_whole_champion(home, registry, name)
                continue
            dropped = lines_repair.repair_line(
                home,
                registry,
                name,
                named=line is not None,
                agreed=lambda lost, name=name: yes or _agreed(name, lost),  # type: ignore[misc]
            )
            found[name] = str(dropped or "")
            lines_repair.require_whole_champion(home, registry, name)
        except (L2dmError, OSError) as error:
            failed[name] = words(error)
    return found, failed


def _back(versions: Sequence[int]) -> str:
    """What an undo brought back, in a sentence."""
    named = ", ".join(map(str, versions))
    return f"taken back what the last repair dropped; the line knows again: version {named}"


def _agreed(line: str, lost: "Dropped") -> bool:
    """Whether the person at the terminal lets it go; without one, nobody does."""
    note(f"{line}: this would be dropped: {lost}")
    if not sys.stdin.isatty():
        note("nobody can be asked here: run it again with --yes to drop it")
        return False
    return typer.confirm(
        f"Drop it? `l2dm repair --line {line} --undo` takes it back once the files are there again",
        err=True,
    )
