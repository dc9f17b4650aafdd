"""`l2dm base show`: what is known of one stored base model."""

from typing import Annotated

import typer

from components.services.store.home import Home
from pipelines.commands.options import HOME, HomeOption, JsonOption
from pipelines.commands.output import tell, tell_json


def show(
    name: Annotated[str, typer.Argument(help="Name of the base.")],
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Show what a stored base is, where it came from, and what it is loaded by."""
    from components.runtime.stored_bases import place_of, shown

    state = Home.at(home)
    record = shown(state, name)
    record["loaded_by"] = place_of(state, record)
    if json:
        tell_json(record)
        return
    for key, value in record.items():
        tell(f"{key.replace('_', ' '):<14}{value}")
