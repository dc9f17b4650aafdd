"""`l2dm base list`: the base models that are stored under the state."""

from components.services.store.home import Home
from pipelines.commands.options import HOME, HomeOption, JsonOption
from pipelines.commands.output import tell, tell_json


def list_(home: HomeOption = HOME, json: JsonOption = False) -> None:
    """List the base models of a state."""
    from components.runtime.stored_bases import listed

    records = listed(Home.at(home))
    if json:
        tell_json(records)
        return
    tell("pocket  ships with l2dm")
    for one in records:
        size = f"{one['bytes'] / 1e9:.2f} GB"
        tell(f"{one['name']}  {one['family']}, {one['resolution']} pixels, {size}")
