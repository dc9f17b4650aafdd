"""`l2dm forget`: a version without one of the line's concepts becomes the champion."""

import sys
from typing import Annotated, Any

import typer

from l2dm import escape
from l2dm.errors import BadInput
from pipelines.commands.options import HOME, HomeOption, JsonOption, LineOption
from pipelines.commands.output import note, tell, tell_json
from pipelines.commands.target import Target, require_line


def forget(
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="What is to be taken out.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    erase: Annotated[
        bool,
        typer.Option(
            "--erase", help="Delete its pictures, features and every version that holds it, too."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without being asked.")] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Take a concept out of a line: the other ones keep their pictures, byte for byte.

    A new version without it becomes the champion; the one before stays, for a rollback. With
    --erase nothing stays that holds the concept, and the record of it has neither name nor reason.
    """
    target = Target(home, line, "")
    require_line(target.home, line)
    if erase and not yes:
        _confirm(line, concept)
    found = erased(target, concept) if erase else take_out(target, concept, reason)
    if json:
        tell_json(found)
    else:
        tell(escape.line(_erased(found) if erase else _taken_out(found)))


def take_out(target: Target, concept: str, reason: str) -> dict[str, Any]:
    """Make a version without a concept the champion.

    Raises LineBusy, UnknownLine, DoesNotFit where the line's method cannot take one out.
    """
    from components.runtime.forgetting import forget as run
    from components.services.line.leases import Leases

    home, line = target.home, target.line
    leases, registry = Leases(home.store), target.registry()
    with leases.held(line) as keeper:
        fence = keeper.lease(line).fence
        done = run(home, registry, line, concept, reason, lambda: leases.check(line, fence))
    return {"line": line, "concept": concept, "champion": done.version, "previous": done.source}


def erased(target: Target, concept: str) -> dict[str, Any]:
    """Take a concept out if the champion knows it, then delete whatever holds it.

    Raises LineBusy, UnknownLine, DoesNotFit, L2dmError while an upload of it is open.
    """
    from components.runtime.erasure import erase, is_known
    from components.runtime.forgetting import forget as take_out
    from components.services.line.leases import Leases

    home, line = target.home, target.line
    leases, registry = Leases(home.store), target.registry()
    with leases.held(line) as keeper:
        fence = keeper.lease(line).fence

        def allowed() -> None:
            leases.check(line, fence)

        if is_known(home, registry, line, concept):
            take_out(home, registry, line, concept, "", allowed)
        done = erase(home, registry, line, concept, allowed)
    return {
        "line": line,
        "erased": list(done.versions),
        "champion": done.champion or None,
        "events": done.events,
        "server": done.server,
    }


def _confirm(line: str, concept: str) -> None:
    """Ask whoever sits there; a script says --yes. Raises BadInput."""
    question = (
        f"{concept} of line {line}: its pictures, features, sheets and every version that holds it "
        "are deleted for good, and no rollback brings them back. Type the concept's name to go on"
    )
    if not sys.stdin.isatty():
        raise BadInput(f"{escape.line(question)}, or pass --yes; nothing was deleted")
    note(escape.line(f"{question}:"))
    if sys.stdin.readline().strip() != concept:
        raise BadInput("another name was typed; nothing was deleted")


def _taken_out(found: dict[str, Any]) -> str:
    return (
        f"{found['line']}: version {found['champion']} is the champion, it does not know "
        f"{found['concept']}; version {found['previous']}, which does, is kept for a rollback"
    )


def _erased(found: dict[str, Any]) -> str:
    versions = ", ".join(map(str, found["erased"])) or "none"
    champion = (
        f"version {found['champion']} is the champion" if found["champion"] else "none is left"
    )
    rest = (
        f"; whoever runs {found['server']} removes the rows that it only marks: mlflow gc"
        if found["server"]
        else ""
    )
    return (
        f"{found['line']}: erased. Versions deleted: {versions}; {champion}. Backups, old versions "
        f"of objects in a bucket, exports and drawings are not reached from here{rest}"
    )
