"""`l2dm cancel`: end an upload that waits or is being learned."""

from typing import Annotated

import typer

from components.services.store.home import Home
from pipelines.commands.options import HOME, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import require_line, require_name


def cancel(
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the upload's concept.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """End an upload that waits or is being learned; submitting it again opens it again."""
    from pipelines.dispatcher import end_upload

    place = Home.at(home)
    require_line(place, line)
    require_name("concept name", concept)
    ended = end_upload.cancel(place, line, concept, reason)
    if json:
        tell_json({"line": line, "concept": concept, "ended": ended})
    else:
        when = "has ended" if ended else "ends at the next look of its dispatcher"
        tell(f"{line}/{concept}: cancelled, {when}")
