"""Photographs that meet a base which cannot draw any: said at once, by `submit`, `learn`, a report.

Nothing is refused for it. The gate judges what was learned; this says beforehand what it will find.
Loads no torch.
"""

from collections.abc import Iterable
from pathlib import Path


def warning(base: str, pictures: Iterable[Path]) -> str:
    """A sentence on what is wrong and what to do; "" where nothing is.

    base: its load name. One that is fetched first, or whose folder cannot be read, says nothing
    here: whoever loads it tells of that. pictures: not asked for where the base draws anything.
    """
    from l2dm.bases import folder as bases
    from l2dm.bases.domain import domain_of
    from l2dm.errors import BadBase
    from l2dm.uploads.flatness import are_photographs

    if bases.source_of(base) not in ("shipped", "folder"):
        return ""
    try:
        domain = domain_of(bases.locate(base))
        if domain is None or domain.photographs or not are_photographs(pictures):
            return ""
    except (BadBase, OSError):
        return ""
    return (
        f"these look like photographs, and base {base!r} draws {domain.draws}: of photographs it "
        "learns colours, not likeness, and the gate may hold what comes of it; learn this line "
        "on a base that knows photographs, with --base (docs/bases.md)"
    )
