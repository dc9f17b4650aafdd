"""`l2dm status`: every line with its versions, aliases and concepts, and who learns it now."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from components.services.store.home import Home
from l2dm import escape
from l2dm.doors import SIGNS, Finding, marked
from l2dm.errors import L2dmError, words
from l2dm.files.concept_json import NAMED
from pipelines.commands.options import HOME, HomeOption, JsonOption
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import chosen_lines, open_registry


def status(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the registry again.")] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Show lines, versions, aliases and concepts with state and reasons."""
    place = Home.at(home)
    lines = status_of(place, line, refresh=refresh)
    strange = place.names().set_aside if line is None else ()
    if json:
        tell_json({"lines": lines, "set_aside": strange})
        _require_readable(lines)
        return
    for key in (*strange, *(key for one in lines for key in one["set_aside"])):
        tell(escape.line(f"set aside: {key!r}: expected a folder named with {NAMED}; rename it"))
    if not lines:
        tell("no lines yet; begin with `l2dm submit`, or try `l2dm demo`")
        return
    for one in lines:
        if "unreadable" not in one:
            _tell_line(place, one)
    _require_readable(lines)


def status_of(home: Home, line: str | None, *, refresh: bool) -> list[dict[str, Any]]:
    """Every line, or one, as `l2dm status --json` prints it. Raises UnknownLine.

    What is wrong with one line stands beside its name as `unreadable`, and hides no other.
    """
    return [_status(home, name, refresh=refresh) for name in chosen_lines(home, line)]


def _status(home: Home, line: str, *, refresh: bool) -> dict[str, Any]:
    from components.services.line import status_cache

    try:
        index = status_cache.read(home, line, lambda: open_registry(home), anew=refresh)
        return status_cache.status(home, line, index)
    except (L2dmError, OSError) as error:
        return {"name": line, "unreadable": words(error), "set_aside": []}


def _tell_line(home: Home, line: dict[str, Any]) -> None:
    """One line, and who learns it; where that cannot be read, that is `unreadable` from then on."""
    name = line["name"]
    _tell(line)
    if line["recipe"]:
        tell(_recipe(line["recipe"]))
    for why in line["untold"]:
        tell(f"to be told again: {why}")
    try:
        for sentence in last_checks(home, [name]).values():
            tell(sentence)
        if holder := _holder(home, name):
            tell(f"being learned by {holder}")
    except (L2dmError, OSError) as error:
        line["unreadable"] = words(error)


def _require_readable(lines: Sequence[Mapping[str, Any]]) -> None:
    """After everything else was shown. Raises L2dmError with every line that could not be."""
    problems = [f"line {one['name']}: {one['unreadable']}" for one in lines if "unreadable" in one]
    if problems:
        raise L2dmError("\n".join(problems))


def _recipe(recipe: Mapping[str, Any]) -> str:
    """How a line learns, in a sentence."""
    base = recipe["base"] or f"with fingerprint {recipe['fingerprint']}"
    return escape.line(f"learns by {recipe['method']} ({recipe['adapter']}) on base {base}")


def _holder(home: Home, line: str) -> str | None:
    """Who learns this line now."""
    from components.services.line.leases import Leases

    return Leases(home.store).holder(line)


def last_checks(home: Home, lines: Sequence[str]) -> dict[str, str]:
    """What the last check of each of these lines' champions found, in a sentence."""
    from components.services.line.records import Records

    told: dict[str, str] = {}
    for line in lines:
        ledger = Records(home.store, line).state()
        champion = ledger.standing.champion
        last = ledger.checks.found.get(champion)
        if last:
            told[line] = f"version {champion} was checked {last.at}: {last.health}"
    return told


def _tell(line: Mapping[str, Any]) -> None:
    """One line as a table: aliases above, a row per concept."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    named = ("champion", "challenger", "previous")
    aliases = ", ".join(f"{alias} {line[alias]}" for alias in named if line[alias])
    title = escape.line(f"{line['name']}: {aliases or 'no version yet'}")
    table = Table(title=Text(title), title_justify="left")
    for column in ("concept", "class noun", "state", "version", "known", "reasons"):
        table.add_column(column, overflow="fold")
    for concept in line["concepts"]:
        row = (
            concept["name"],
            concept["class_noun"],
            concept["state"],
            str(concept["version"] or ""),
            _known(concept),
        )
        reasons = "\n".join(map(escape.line, _reasons(line["name"], concept)))
        # Text, because rich takes [brackets] of a plain string for markup
        table.add_row(*(Text(escape.line(value)) for value in row), Text(reasons))
    Console().print(table)


def _known(concept: Mapping[str, Any]) -> str:
    """Whether the champion knows it, and by which version if another one is shown beside it."""
    known = concept["known_version"]
    if known is not None:
        return "yes" if known == concept["version"] else f"version {known}"
    return "not any more" if concept["taken_back"] else "no"


def _reasons(line: str, concept: Mapping[str, Any]) -> list[str]:
    """Why it stands where it stands; what the gate found is marked as passed or not."""
    findings = [Finding(one["question"], one["passed"]) for one in concept["findings"]]
    reasons = [SIGNS[passed] + reason for passed, reason in marked(concept["reasons"], findings)]
    if version := concept["taken_back"]:
        what = "taken back by a rollback"
        if concept["known"]:
            what = f"it was taught anew in version {version}, which was {what}"
        reasons.append(
            f"{what}: `l2dm rollback --line {line} --to {version}` makes version {version} the "
            "champion again, or submit it anew"
        )
    return reasons
