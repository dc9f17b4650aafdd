"""`l2dm forget`: a version without one of the line's concepts becomes the champion."""

from typing import Annotated, Any

import typer

from l2dm import escape
from pipelines.commands.options import HOME, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import Target, require_line


def forget(
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="What is to be taken out.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Take a concept out of a line: the other ones keep their pictures, byte for byte.

    A new version without it becomes the champion; the one before stays, for a rollback.
    """
    found = take_out(Target(home, line, ""), concept, reason)
    if json:
        tell_json(found)
        return
    tell(
        escape.line(
            f"{line}: version {found['champion']} is the champion, it does not know {concept}; "
            f"version {found['previous']}, which does, is kept for a rollback"
        )
    )


def take_out(target: Target, concept: str, reason: str) -> dict[str, Any]:
    """Make a version without a concept the champion.

    Raises UnknownLine, LineBusy, DoesNotFit where the line's method cannot take one out.
    """
    from components.runtime.forgetting import forget as run
    from components.services.line.leases import Leases

    require_line(target.home, target.line)
    leases, registry = Leases(target.home.store), target.registry()
    with leases.held(target.line) as keeper:
        fence = keeper.lease(target.line).fence
        done = run(
            target.home,
            registry,
            target.line,
            concept,
            reason,
            lambda: leases.check(target.line, fence),
        )
    return {
        "line": target.line,
        "concept": concept,
        "champion": done.version,
        "previous": done.source,
    }
