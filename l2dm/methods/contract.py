"""One page per published method. A method is three verbs: begin, loss, end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from l2dm.bases.model import Model
from l2dm.methods.lesson import Batch, Lesson


@dataclass(frozen=True)
class Learned:
    """What a method leaves behind: everything an Adapter door stores.

    weights: by name. rows: (1, D) per concept name. settings: what is needed to attach them.
    """

    kind: str
    settings: Mapping[str, str | int | float]
    weights: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]


@dataclass(frozen=True)
class Trainable:
    """What the optimiser changes, in its two groups."""

    weights: Mapping[str, nn.Parameter]
    rows: Mapping[str, nn.Parameter] = field(default_factory=dict)

    def all(self) -> dict[str, nn.Parameter]:
        """Both groups by name; rows are called `row/<concept>`."""
        return dict(self.weights) | {f"row/{name}": row for name, row in self.rows.items()}


class Method(Protocol):
    """A way to learn one more concept without losing the others."""

    @property
    def replays(self) -> bool:
        """Whether batches need short-term memory; where not, none is drawn for it."""

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach what may change and fix what the teacher is."""

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The weighted terms of one step, one value per sample each, (B,)."""

    def end(self) -> Learned:
        """Hand over what was learned."""
