"""`l2dm base add`: make a checked base of a folder, a hub name or one checkpoint, and store it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from components.services.store.home import Home
from pipelines.commands.options import HOME, HomeOption, JsonOption
from pipelines.commands.output import note, tell, tell_json


def add(
    source: Annotated[
        str,
        typer.Argument(metavar="NAME_OR_FOLDER", help='Folder, "org/name", or FILE.safetensors.'),
    ],
    encoders: Annotated[
        list[str] | None,
        typer.Option(
            "--encoders",
            help="Folder or hub name of a CLIPModel or a vision model; may be repeated.",
        ),
    ] = None,
    like: Annotated[
        str,
        typer.Option("--like", help="For one checkpoint: a base with its configs and words."),
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help="What to call it; else from its source.")
    ] = "",
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Check a base, give it encoders, try it out, and store it under the state."""
    record = add_base(Home.at(home), source, encoders or [], like=like, name=name)
    if json:
        tell_json(record)
    else:
        tell(f"base {record['name']}: {record['family']}, {record['resolution']} pixels")
        tell(f"use it with --base {record['name']}")


def add_base(
    home: Home, source: str, encoders: Sequence[str], *, like: str = "", name: str = ""
) -> dict[str, Any]:
    """The record of a base that was added. Raises BadBase; nothing is stored then."""
    from components.runtime import stored_bases

    name = name or stored_bases.suggested_name(source)
    stored_bases.require_free(home, name)
    with _scratch(home) as scratch:
        from l2dm.bases.adding.assemble import put_together
        from l2dm.bases.adding.trial import try_out

        note(f"base {name}: reading {source}")
        folder = scratch / name
        with _told_by(folder, source):
            origin = put_together(source, encoders, like, folder)
            note(f"base {name}: drawing a picture of two steps")
            facts = try_out(folder)
        note(f"base {name}: storing it in {home.place}")
        added = datetime.now(UTC).isoformat(timespec="seconds")
        return stored_bases.store(home, name, folder, {**facts, **_from(origin), "added": added})


def _from(origin: Any) -> dict[str, str]:
    return {f"{part}_from": place for part, place in asdict(origin).items()}


@contextmanager
def _scratch(home: Home) -> Iterator[Path]:
    """A folder beside fetched bases, on their disk; one of a killed add goes after a day."""
    from components.runtime.base_cache import remove_abandoned

    home.base_cache.mkdir(parents=True, exist_ok=True)
    remove_abandoned(home.base_cache)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=home.base_cache) as scratch:
        yield Path(scratch)


@contextmanager
def _told_by(folder: Path, source: str) -> Iterator[None]:
    """Name what was given, and not the scratch folder that it was copied to."""
    from l2dm.errors import BadBase

    try:
        yield
    except BadBase as error:
        told = [problem.replace(str(folder), source) for problem in error.problems]
        raise BadBase(told) from error
