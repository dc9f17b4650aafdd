"""A step's drawing shared out: shards draw and measure nothing, the step gathers and measures.

What is drawn in one call of the sampler stays together: a picture may differ in its last bit
between calls of different make-up. So what the step writes does not depend on the shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from l2dm import doors
from l2dm.bases.model import Model
from l2dm.bases.sampling import Shot
from l2dm.errors import BadDoor, BadSpec
from l2dm.evaluation import measure
from l2dm.files import door_files, manifest
from l2dm.files.door_files import DrawnCall
from l2dm.files.manifest import Door
from l2dm.replay import rainbow_memory
from l2dm.spec import SamplingSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `of` shards, counted from 1; written "2/4"."""

    number: int
    of: int

    @classmethod
    def named(cls, text: str) -> "Shard":
        """The shard of that name. Raises BadSpec."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise BadSpec(f'shard {text!r}: expected a name such as "2/4", the second of four')
        return cls(int(number), int(of))

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """What falls to this shard: every `of`-th."""
        return items[self.number - 1 :: self.of]


class Recorder:
    """Draws and keeps what was drawn: one shard's work."""

    def __init__(self) -> None:
        self.calls: list[doors.Call] = []
        self.drawn: list[DrawnCall] = []

    def pictures(self, draw: measure.Draw) -> measure.Draw:
        """`draw`, kept."""

        def drawing(model: Model, shots: Sequence[Shot], sampling: SamplingSpec) -> Tensor:
            drawn = draw(model, shots, sampling)
            self._keep(model, shots, DrawnCall(drawn))
            return drawn

        return drawing

    def candidates(self, model: Model, shots: Sequence[Shot], sampling: SamplingSpec) -> None:
        """Candidates of one batch, kept."""
        latents, pictures = rainbow_memory.draw_candidates(model, shots, sampling)
        self._keep(model, shots, DrawnCall(pictures, latents))

    def save(self, folder: Path) -> None:
        """Write the payload of a Drawn door."""
        door_files.write_drawn(folder, self.drawn)

    def _keep(self, model: Model, shots: Sequence[Shot], drawn: DrawnCall) -> None:
        self.calls.append(_call(model, shots))
        self.drawn.append(drawn)


class Gathered:
    """What all shards of a step drew, in place of drawing. Raises BadDoor when one is missing."""

    def __init__(self, parts: Sequence[Door[doors.Drawn]]) -> None:
        self._drawn: dict[doors.Call, DrawnCall] = {}
        for part in parts:
            drawn = door_files.read_drawn(part)
            self._drawn |= dict(zip(part.record.calls, drawn, strict=True))

    def pictures(self, model: Model, shots: Sequence[Shot], sampling: SamplingSpec) -> Tensor:
        """A `measure.Draw`: (n, 3, H, W) uint8."""
        return self._find(model, shots).pictures

    def candidates(
        self, model: Model, shots: Sequence[Shot], sampling: SamplingSpec
    ) -> tuple[Tensor, Tensor]:
        """As `rainbow_memory.DrawCandidates`: latents (n, C, h, w), pictures (n, 3, H, W) uint8."""
        found = [self._find(model, batch) for batch in batches(shots, sampling)]
        latents = [one.latents for one in found if one.latents is not None]
        return torch.cat(latents), torch.cat([one.pictures for one in found])

    def _find(self, model: Model, shots: Sequence[Shot]) -> DrawnCall:
        found = self._drawn.get(_call(model, shots))
        if found is None:
            raise BadDoor(
                f"expected the shards to have drawn {len(shots)} pictures from "
                f"{shots[0].prompt!r} on, found none of them; run the shards again"
            )
        return found


def names(count: int) -> tuple[str, ...]:
    """The names of all shards."""
    return tuple(f"{number}/{count}" for number in range(1, count + 1))


def batches(shots: Sequence[Shot], sampling: SamplingSpec) -> tuple[Sequence[Shot], ...]:
    """What is drawn at once."""
    return tuple(shots[at : at + sampling.batch] for at in range(0, len(shots), sampling.batch))


def gather(
    folders: Sequence[Path], step: str, inputs: Mapping[str, str], spec: Mapping[str, Any]
) -> Gathered:
    """All shards of a step, in any order. inputs, spec: what the step itself works from.

    Raises BadDoor when a shard is missing, doubled, or was drawn from something else.
    """
    parts = [manifest.read(folder, doors.Drawn) for folder in folders]
    for part in parts:
        same = all(inputs.get(name) == digest for name, digest in part.inputs.items())
        if part.record.step != step or not same or part.spec != spec:
            raise BadDoor(
                f"expected a shard of this {step} in {part.folder}, found shard "
                f"{part.record.shard} of {part.record.step}, made from other doors or with another "
                "spec; check which folders are passed"
            )
    found = sorted(part.record.shard for part in parts)
    wanted = sorted(names(Shard.named(found[0]).of))
    if found != wanted:
        raise BadDoor(f"expected the shards {wanted} of {step}, found {found}; run all of them")
    return Gathered(parts)


def _call(model: Model, shots: Sequence[Shot]) -> doors.Call:
    prompts, seeds = (tuple(getattr(shot, name) for shot in shots) for name in ("prompt", "seed"))
    return doors.Call(model.bare, prompts, seeds)
