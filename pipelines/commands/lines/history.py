"""`l2dm history`: everything that was recorded of a line."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.services.store.home import Home
from l2dm import escape
from l2dm.errors import L2dmError
from pipelines.commands.options import HOME, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import require_line


def history(line: LineOption, home: HomeOption = HOME, json: JsonOption = False) -> None:
    """Show everything that was recorded of a line: what, when, by whom and why.

    A record that is missing or damaged is named in its place, and the exit code is 1.
    """
    events, wrong = events_of(Home.at(home), line)
    if json:
        gaps = [{"number": number, "why": why} for number, why in wrong.items()]
        tell_json({"line": line, "events": events, "wrong": gaps})
    else:
        _tell(events, wrong)
    if wrong:
        raise L2dmError(
            f"line {line!r} cannot go on: what was recorded is missing or damaged at "
            f"{_spans(wrong)}; restore it from a backup, all other records are as they were"
        )


def events_of(home: Home, line: str) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Every event of a line, oldest first, and why others cannot be read. Raises UnknownLine."""
    from components.services.line.records import Records

    require_line(home, line)
    events, wrong = Records(home.store, line).legible()
    return [{"number": event.number, **event.facts} for event in events], wrong


def _tell(events: Sequence[Mapping[str, Any]], wrong: Mapping[int, str]) -> None:
    """One line per event: number, time, who, what, and its facts."""
    lines = {event["number"]: _line(event) for event in events}
    lines |= {number: f"{number:6d}  cannot be read: {why}" for number, why in wrong.items()}
    for number in sorted(lines):
        tell(escape.line(lines[number]))


def _spans(numbers: Iterable[int]) -> str:
    """Numbers in words, neighbours together: 2, 4 to 900."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join(" to ".join(map(str, span)) for span in found)


def _line(event: Mapping[str, Any]) -> str:
    told = ("number", "at", "by", "kind", "id")
    facts = [f"{name}={value}" for name, value in event.items() if name not in told and value]
    head = f"{event['number']:6d}  {event.get('at', '?')}  {event.get('by', '?')}  {event['kind']}"
    return "  ".join([head, *facts])
