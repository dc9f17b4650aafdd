"""What other installed packages bring: their entry points, by group, without importing anything.

A page or a family that another package registers in one process is unknown to the children that it
starts. One that the package declares is known to every process where the package is installed.
"""

from functools import cache
from importlib.metadata import EntryPoint, distributions


@cache
def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Those of a group by name, each once.

    All distributions are asked: `importlib.metadata.entry_points` stops at a stale one of a
    package's name, which lies beside the code of a checkout.
    """
    found = {
        (point.name, point.value): point
        for distribution in distributions()
        for point in distribution.entry_points.select(group=group)
    }
    return tuple(found[key] for key in sorted(found))
