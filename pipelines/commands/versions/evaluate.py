"""`l2dm evaluate`: measure the champion again, with fresh seeds."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from l2dm import escape
from pipelines.commands.options import (
    BASE,
    HOME,
    BaseOption,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import tell_json
from pipelines.commands.target import Target, require_line


def evaluate(
    line: LineOption,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: a fresh one.")] = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate the champion again, with fresh seeds."""
    found = evaluate_champion(Target(home, line, base, tuple(settings or ())), seed)
    if json:
        tell_json(found)
    else:
        _tell(found)


def evaluate_champion(target: Target, seed: int | None) -> dict[str, Any]:
    """The champion's scores with fresh seeds. Raises UnknownLine, BadBase, DoesNotFit."""
    from l2dm.context import Context
    from l2dm.files import manifest
    from l2dm.steps import evaluate_release

    require_line(target.home, target.line)
    fresh = secrets.randbelow(2**31) if seed is None else seed
    with target.fetched("champion") as (number, release):
        context = Context(target.local_base(), target.line, "", number, target.spec)
        row = evaluate_release(release, context, seed=fresh)
    return {"line": target.line, "version": number, "seed": fresh, "row": manifest.to_data(row)}


def _tell(found: Mapping[str, Any]) -> None:
    """The champion's fresh means, one concept per line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    means: Mapping[str, Mapping[str, float]] = found["row"]["means"]
    title = f"{found['line']}: version {found['version']}, seed {found['seed']}"
    table = Table(title=Text(escape.line(title)))
    for column in ("concept", *means):
        table.add_column(column)
    for concept in next(iter(means.values()), {}):
        table.add_row(Text(escape.line(concept)), *(f"{of[concept]:.3f}" for of in means.values()))
    Console().print(table)
