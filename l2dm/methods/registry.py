"""Which methods there are. A method is one page: a module of this folder that says its NAME.

    NAME = "gated"               what `train.method` and `--method` call it
    REPLAYS = False              whether it may ask for pictures of past concepts
    OPTIONS = GatedOptions       its own options, a `Section`; set as `gated.<key>`
    METHOD = Gated               made as METHOD(train section of the spec, its options)

The first line of its docstring is its summary. Names and summaries are read off the source, so
that nothing heavy is imported before a method is used or one of its options is set; NAME and
REPLAYS are therefore written out, not computed. Another package declares its pages, each under its
NAME, and every process knows them where that package is installed:

    [project.entry-points."l2dm.methods"]
    ewc = "package.module"

`register` makes a module or a class with these four known to one process, as tests do.
"""

import ast
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

from l2dm import installed
from l2dm.errors import BrokenPackage
from l2dm.installed import Unfit

GROUP = "l2dm.methods"  # entry points named by a method: the module of its page

log = logging.getLogger(__name__)


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
    """Those of this folder, sorted, those of installed packages, those that were registered."""
    return tuple(_pages())


def page(name: str) -> MethodPage:
    """One of `names`. Raises KeyError."""
    return _pages()[name]


def options(name: str) -> Any:
    """The class of a method's own options. Imports its page. Raises BrokenPackage."""
    return page(name).load().OPTIONS


def every_options() -> Mapping[str, Any]:
    """The classes of all methods' own options, by method; a page that cannot be imported has none.

    Imports every page, which is for keys that are listed or looked for.
    """
    found = {}
    for name in names():
        try:
            found[name] = options(name)
        except BrokenPackage as error:
            log.warning("%s", error)
    return found


def read_page(path: Path, module: str) -> MethodPage | None:
    """A page by its source, without importing it; None for a module that is no page.

    Raises ValueError for a name that is computed.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = _assigned(tree)
    if "NAME" not in values:
        return None
    return MethodPage(
        name=str(_constant(path, "NAME", values["NAME"])),
        summary=_summary(ast.get_docstring(tree)),
        replays=bool("REPLAYS" in values and _constant(path, "REPLAYS", values["REPLAYS"])),
        load=lambda: importlib.import_module(module),
    )


def _pages() -> Mapping[str, MethodPage]:
    return {**_found(), **_registered}


@cache
def _found() -> Mapping[str, MethodPage]:
    package = __name__.rpartition(".")[0]
    folder = Path(__file__).parent
    own = (read_page(path, f"{package}.{path.stem}") for path in sorted(folder.glob("*.py")))
    pages = {one.name: one for one in own if one}
    for point in installed.entry_points(GROUP):
        try:
            page = _declared(point)
            if page.name in pages:
                raise Unfit(f"found method {page.name!r} a second time; rename it")
            pages[page.name] = page
        except Exception as error:  # noqa: BLE001 - told below
            # whatever a wrong package holds must not end what has nothing to do with it
            log.warning("%s", installed.left_out(point, error))
    return pages


def _declared(point: EntryPoint) -> MethodPage:
    """The page of an entry point. Raises ImportError, OSError, SyntaxError, ValueError and others.

    A value that names no module, or a source that is nested beyond what Python parses.
    """
    module = installed.require_module(point)
    page = read_page(_source(module), module)
    if page is None or page.name != point.name:
        found = f"NAME {page.name!r}" if page else "none"
        raise Unfit(f"expected a module with NAME = {point.name!r}, found {found}")
    return replace(page, load=lambda: _imported(point))


def _imported(point: EntryPoint) -> Any:
    """The page itself. Raises BrokenPackage, whatever the package does."""
    try:
        return importlib.import_module(point.module)
    except (Exception, SystemExit) as error:
        raise BrokenPackage(
            f"method {point.name!r}: expected module {point.module} of an installed package, found "
            f"that it cannot be imported ({type(error).__name__}: {error}); it stands in "
            f"{installed.called(point)}: {installed.MEND}"
        ) from error


def _source(module: str) -> Path:
    """The file of a module, without importing it or a package that it is in."""
    top, *inner = module.split(".")
    spec, name = find_spec(top), top
    for part in inner:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    if spec is None or spec.origin is None:
        raise Unfit(f"expected a module {module}, found none")
    if not Path(spec.origin).is_file():  # a pipe, say, would be waited for
        raise Unfit(f"expected the source of {module}, found no file {spec.origin}")
    return Path(spec.origin)


def _assigned(tree: ast.Module) -> Mapping[str, ast.expr]:
    """What names are given at the top of a module, with a type beside them or without."""
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            found |= {one.id: statement.value for one in statement.targets if _is_name(one)}
        elif (
            isinstance(statement, ast.AnnAssign) and statement.value and _is_name(statement.target)
        ):
            found[statement.target.id] = statement.value
    return found


def _constant(path: Path, name: str, value: ast.expr) -> Any:
    if not isinstance(value, ast.Constant):
        raise Unfit(
            f"expected {name} of {path} written out, because it is read off the source, found "
            f"{ast.unparse(value)!r}"
        )
    return value.value


def _is_name(target: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(target, ast.Name)


def _summary(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0].strip()
