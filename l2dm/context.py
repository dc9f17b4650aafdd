"""What every step of one task shares, and how a step writes its door."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from l2dm import spec as specs
from l2dm.bases.diffusion import derive_seed
from l2dm.files import manifest
from l2dm.files.manifest import Door

R = TypeVar("R")


@dataclass(frozen=True)
class Context:
    """What every step of one task shares. `base` is how to load the base model."""

    base: str
    line: str
    task_id: str
    parent_version: int
    spec: specs.Spec

    @property
    def seed(self) -> int:
        """The task's seed: a function of the spec's seed and the task's place in the line."""
        return derive_seed(self.spec.seed, self.line, self.task_id)


def write_door(
    out: Path,
    record: R,
    fill: Callable[[Path], None],
    context: Context,
    inputs: Mapping[str, str],
) -> Door[R]:
    """Write a door under the task's spec and seed."""
    recorded = specs.recorded(context.spec)
    return manifest.write(out, record, fill, spec=recorded, seed=context.seed, inputs=inputs)
