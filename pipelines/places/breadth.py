"""How widely a run is shared out: by the length of its line, read off the records.

It changes how long the run takes and no byte of what it writes, so a count that is one off, when
the champion moves while the run is submitted, does no harm.
"""

from dataclasses import dataclass

from components.services.line.ledger import Ledger
from l2dm.spec import Spec

WHOLE = ("1/1",)
# methods that draw candidates of past concepts; for others a pod would do nothing
REPLAYING = ("l2dm",)


@dataclass(frozen=True)
class Breadth:
    """Names of the shards that draw for `score_memory` and for `evaluate`."""

    memory: tuple[str, ...] = WHOLE
    evaluate: tuple[str, ...] = WHOLE

    @property
    def wide(self) -> bool:
        """Whether anything is shared out."""
        return (self.memory, self.evaluate) != (WHOLE, WHOLE)


def may_be_wide(spec: Spec) -> bool:
    """Whether any line is shared out under this spec."""
    return bool(spec.memory.fan_out or spec.evaluate.fan_out)


def breadth_of(spec: Spec, ledger: Ledger) -> Breadth:
    """The shards of the next task of a line with this ledger; its concept counts, too."""
    count = known_concepts(ledger) + 1
    replays = spec.train.method in REPLAYING
    return Breadth(
        memory=_shards(count, spec.memory.fan_out * replays, spec.memory.shards),
        evaluate=_shards(count, spec.evaluate.fan_out, spec.evaluate.shards),
    )


def known_concepts(ledger: Ledger) -> int:
    """How many concepts the champion knows: it and every version it was learned from."""
    states = ledger.concepts.values()
    parents = {one.version: one.parent_version for one in states if one.version}
    count, version = 0, ledger.standing.champion
    while version in parents:
        count, version = count + 1, parents[version]
    return count


def _shards(concepts: int, above: int, count: int) -> tuple[str, ...]:
    if not above or concepts <= above:
        return WHOLE
    return tuple(f"{number}/{count}" for number in range(1, count + 1))
