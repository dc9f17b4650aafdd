"""`l2dm settings`: every key that people may set, with its default, its range and its meaning."""

import json as json_text
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.commands.options import JsonOption
from pipelines.commands.output import tell, tell_json

if TYPE_CHECKING:
    from l2dm.sections import Described


def settings(json: JsonOption = False) -> None:
    """Show every setting of the spec (--set) and of l2dm.toml (--config): default, range, meaning.

    --json adds a JSON schema of each, for forms.
    """
    from l2dm.spec import Spec
    from pipelines.places.settings import Settings

    spec, places = list(spec_keys()), list(place_keys())
    if json:
        told = (("spec", spec, Spec), ("l2dm.toml", places, Settings))
        tell_json(
            {
                name: {"settings": [_data(one) for one in keys], "schema": kind.model_json_schema()}
                for name, keys, kind in told
            }
        )
        return
    tell("What a task learns, and when it becomes the champion: --set KEY=VALUE")
    _tell(spec)
    tell("\nWhere and on what steps run: a file in TOML, --config l2dm.toml")
    _tell(places)


def spec_keys() -> "Iterator[Described]":
    """Every key of the spec, then every method's own options. Imports the methods' pages."""
    from l2dm.methods import registry
    from l2dm.sections import described
    from l2dm.spec import Spec

    methods = f"one of {', '.join(map(repr, registry.names()))}"
    for one in described(Spec):
        yield one._replace(expected=methods) if one.key == "train.method" else one
    for name, options in registry.every_options().items():
        for one in described(options):
            yield one._replace(key=f"{name}.{one.key}")


def place_keys() -> "Iterator[Described]":
    """Every key of l2dm.toml."""
    from l2dm.sections import described
    from pipelines.places.settings import Settings

    yield from described(Settings)


def _data(one: "Described") -> dict[str, Any]:
    """For a script."""
    default = {"key": one.key, "default": one.default}
    return {**default, "range": one.expected, "meaning": one.meaning}


def _tell(keys: "Iterable[Described]") -> None:
    """One line a key."""
    rows = [
        (one.key, "" if one.default is None else json_text.dumps(one.default), one.expected)
        for one in keys
    ]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row, one in zip(rows, keys, strict=True):
        columns = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        tell("  " + "".join(columns) + one.meaning)
