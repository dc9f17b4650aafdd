"""`l2dm repair`: after a restore from backups, make records and registry agree."""

from typing import Annotated

import typer

from components.services.store.home import Home
from pipelines.commands.options import HOME, HomeOption, JsonOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import chosen_lines, open_registry


def repair(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """After a restore from backups: make records and registry agree, say what is dropped."""
    found = repair_lines(Home.at(home), line)
    if json:
        tell_json({"lines": found})
        return
    for name, dropped in found.items():
        tell(f"{name}: {dropped or 'records and registry agree'}")


def repair_lines(home: Home, line: str | None) -> dict[str, str]:
    """Make every line, or one, agree with the registry; what was dropped of each, "" if nothing."""
    from components.services.line import status_cache
    from pipelines.dispatcher.repair import repair_line

    lines, registry, found = chosen_lines(home, line), open_registry(home), dict[str, str]()
    for name in lines:
        status_cache.forget(home, name)
        found[name] = str(repair_line(home, registry, name) or "")
    return found
