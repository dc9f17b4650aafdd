"""Which methods there are. A method is one page: a module of this folder that says its NAME.

    NAME = "gated"               what `train.method` and `--method` call it
    REPLAYS = False              whether it may ask for pictures of past concepts
    OPTIONS = GatedOptions       its own options, a `Section`; set as `gated.<key>`
    METHOD = Gated               made as METHOD(train section of the spec, its options)

The first line of its docstring is its summary. Names and summaries are read off the source, so
that nothing heavy is imported before a method is used or one of its options is set. A page that
lives elsewhere, a module or a class with these four, is made known with `register`.
"""

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MethodPage:
    """What is known of a method before it is imported. load: the page itself."""

    name: str
    summary: str
    replays: bool
    load: Callable[[], Any]


_registered: dict[str, MethodPage] = {}


def register(page: Any) -> None:
    """Let this process know a page that is no module of this folder. Raises ValueError."""
    wanted = ("NAME", "OPTIONS", "METHOD")
    if missing := [name for name in wanted if not hasattr(page, name)]:
        raise ValueError(f"expected {wanted} on a method's page, found no {missing}")
    if page.NAME in _pages():
        raise ValueError(f"expected a new method, found {page.NAME!r} a second time; rename it")
    replays = bool(getattr(page, "REPLAYS", False))
    _registered[page.NAME] = MethodPage(
        page.NAME, _summary(page.__doc__), replays, load=lambda: page
    )


def unregister(name: str) -> None:
    """Forget a page that was registered. Raises KeyError when none was."""
    del _registered[name]


def names() -> tuple[str, ...]:
    """Those of this folder, sorted, then those that were registered."""
    return tuple(_pages())


def page(name: str) -> MethodPage:
    """One of `names`. Raises KeyError."""
    return _pages()[name]


def options(name: str) -> Any:
    """The class of a method's own options. Imports its page."""
    return page(name).load().OPTIONS


def _pages() -> Mapping[str, MethodPage]:
    return {**_own(), **_registered}


@cache
def _own() -> Mapping[str, MethodPage]:
    found = (_read(path) for path in sorted(Path(__file__).parent.glob("*.py")))
    return {one.name: one for one in found if one}


def _read(path: Path) -> MethodPage | None:
    """A page's constants, without importing it; None for a module that is no page."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    if "NAME" not in constants:
        return None
    module = f"{__name__.rpartition('.')[0]}.{path.stem}"
    return MethodPage(
        name=str(constants["NAME"]),
        summary=_summary(ast.get_docstring(tree)),
        replays=bool(constants.get("REPLAYS", False)),
        load=lambda: importlib.import_module(module),
    )


def _summary(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0].strip()
