"""How aliases move: by a verdict after a task, or back by hand. Everything else leaves them alone.

The lock of the line is held by the caller. The champion is read again before it moves and after,
`previous` is set before `champion`, and a second call with the same arguments changes nothing, so
a kill between any two statements is repaired by running the step again. A promotion leaves
`challenger` where it is unless it names the version that became champion.
"""

from collections.abc import Callable
from pathlib import Path

from components.services.records import Records
from components.services.registry import Registry, require_version
from l2dm.errors import L2dmError, StaleParent


def settle(registry: Registry, records: Records, line: str, version: int) -> bool:
    """Move the aliases as the version's verdict says; True when it is the champion now.

    Open: `previous`, then `champion`. Closed: `challenger` only. Raises StaleParent when the
    champion is neither the version's parent nor the version itself.
    """
    facts = require_version(registry, line, version).facts
    champion = registry.aliases(line).get("champion", 0)
    if champion not in (facts.parent_version, version):
        raise StaleParent(
            f"expected the champion of line {line!r} to be version {facts.parent_version}, from "
            f"which task {facts.task} was learned, found version {champion}; version {version} "
            f"stays without an alias, submit {facts.concept!r} again to learn it from the new one"
        )
    if not facts.open:
        registry.set_alias(line, "challenger", version)
        return False
    if champion != version:
        records.append("promotion", line=line, task=facts.task, source=champion, target=version)
        _crown(registry, line, champion, version)
    return True


def roll_back(
    registry: Registry,
    records: Records,
    line: str,
    version: int,
    check: Callable[[int, Path], None],
    scratch: Path,
) -> int:
    """Make an older version the champion again; returns the version it replaced.

    The target is fetched to `scratch` and `check(version, folder)` must accept it before an
    alias moves; whatever it raises is passed on and the champion stays.
    """
    require_version(registry, line, version)
    champion = registry.aliases(line).get("champion", 0)
    if champion == version:
        raise L2dmError(
            f"version {version} is already the champion of line {line!r}; "
            "name another one with --to, see `l2dm status`"
        )
    check(version, registry.fetch(line, version, scratch))
    records.append("rollback", line=line, source=champion, target=version)
    _crown(registry, line, champion, version)
    return champion


def _crown(registry: Registry, line: str, champion: int, version: int) -> None:
    if champion:
        registry.set_alias(line, "previous", champion)
    registry.set_alias(line, "champion", version)
    if registry.aliases(line).get("challenger") == version:
        registry.drop_alias(line, "challenger")
    found = registry.aliases(line).get("champion")
    if found != version:
        raise StaleParent(
            f"set the champion of line {line!r} to version {version}, then found version {found}: "
            "somebody else moved it; check who writes to this registry"
        )
