"""What other installed packages bring: their entry points, by group, without importing anything.

A page or a family that another package registers in one process is unknown to the children that it
starts. One that the package declares is known to every process where the package is installed.
What a package declares wrongly is told in our words, by package, group and name, and ends nothing.
"""

import logging
import re
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

log = logging.getLogger(__name__)
OURS = "l2dm."  # how the names of our groups begin
MEND = "mend that package, or uninstall it"
_FILE = "entry_points.txt"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Unfit(ValueError):
    """What an entry point names is not what its group is for; said in our words."""


@cache
def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Those of a group by name, each once.

    All distributions are asked: `importlib.metadata.entry_points` stops at a stale one of a
    package's name, which lies beside the code of a checkout.
    """
    found = {(point.name, point.value): point for point in _ours() if point.group == group}
    return tuple(found[key] for key in sorted(found))


def require_module(point: EntryPoint) -> str:
    """The module that an entry point names. Raises Unfit for a value that is no module's name."""
    if not _MODULE.fullmatch(point.value):
        raise Unfit(f"expected the name of a module, found {point.value!r}")
    return point.value


def called(point: EntryPoint) -> str:
    """Package, group, name and value of an entry point."""
    package = f"installed package {_package(point.dist)}, " if point.dist else ""
    return f"{package}{point.group}: {point.name} = {point.value}"


def left_out(point: EntryPoint, error: BaseException) -> str:
    """The sentence for an entry point that nothing can be made of."""
    log.debug("%s", called(point), exc_info=error)  # for whoever mends it
    return f"{called(point)} is left out: {_why(point.value.partition(':')[0], error)}; {MEND}"


def _why(module: str, error: BaseException) -> str:
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        if module == error.name or module.startswith(f"{error.name}."):
            return f"expected a module {module}, found none"
        return f"{module} needs a module {error.name}, which is not installed"
    if isinstance(error, AttributeError) and getattr(error.obj, "__name__", None) == module:
        return f"expected {error.name} in {module}, found none"
    if isinstance(error, SyntaxError | UnicodeError | RecursionError):
        return f"expected Python in the source of {module}, found something else"
    if isinstance(error, OSError):
        return f"expected the source of {module}, found that it cannot be read"
    return f"{module} ended with {type(error).__name__} when it was looked at"


@cache
def _ours() -> tuple[EntryPoint, ...]:
    found = list[EntryPoint]()
    for distribution in distributions():
        try:
            if OURS not in (distribution.read_text(_FILE) or ""):
                continue
        except (OSError, UnicodeError):  # no group of ours can be read there
            continue
        try:
            found += [one for one in distribution.entry_points if one.group.startswith(OURS)]
        except Exception as error:
            log.debug("%s", _FILE, exc_info=error)
            log.warning(
                "installed package %s is left out: expected groups of NAME = MODULE in its %s, "
                "found something else; %s",
                _package(distribution),
                _FILE,
                MEND,
            )
    return tuple(found)


def _package(distribution: Distribution) -> str:
    """Name and version, as far as it says them."""
    try:
        about = distribution.metadata
        return " ".join(filter(None, (about["Name"], about["Version"]))) or "without a name"
    except Exception:  # noqa: BLE001 - a package whose metadata are damaged, too
        return "without a name"
