"""`l2dm history`: everything that was recorded of a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.services.store.home import Home
from l2dm import escape
from pipelines.commands.options import HOME, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import require_line


def history(line: LineOption, home: HomeOption = HOME, json: JsonOption = False) -> None:
    """Show everything that was recorded of a line: what, when, by whom and why."""
    events = events_of(Home.at(home), line)
    if json:
        tell_json({"line": line, "events": events})
    else:
        _tell(events)


def events_of(home: Home, line: str) -> list[dict[str, Any]]:
    """Every event of a line, oldest first. Raises UnknownLine."""
    from components.services.line.records import Records

    require_line(home, line)
    return [{"number": event.number, **event.facts} for event in Records(home.store, line).events()]


def _tell(events: Sequence[Mapping[str, Any]]) -> None:
    """One line per event: number, time, who, what, and its facts."""
    told = ("number", "at", "by", "kind", "id")
    for event in events:
        facts = [f"{name}={value}" for name, value in event.items() if name not in told and value]
        head = f"{event['number']:6d}  {event['at']}  {event['by']}  {event['kind']}"
        tell(escape.line("  ".join([head, *facts])))
