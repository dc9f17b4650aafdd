"""One page per published method. A method is three verbs: begin, loss, end.

docs/methods.md says how to add one; `registry` finds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from l2dm.adapters.contract import AdapterSettings
from l2dm.bases.model import Model
from l2dm.methods.lesson import Batch, Lesson, StateTensors


@dataclass(frozen=True)
class Learned:
    """What a method leaves behind: everything an Adapter door stores.

    weights: by name. rows: (1, D) per concept name. settings: what is needed to attach them. state:
    what the method itself needs again at the next task, by name; `Lesson.inherited` gives it back.
    """

    kind: str
    settings: AdapterSettings
    weights: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    state: StateTensors = field(default_factory=dict)


@dataclass(frozen=True)
class Trainable:
    """What changes in a training: by the optimiser, in its two groups, and by the method itself.

    state: tensors that `loss` changes in place, running sums and the like. They are kept in
    checkpoints with the rest; whatever else a method remembers from step to step is lost in a kill.
    """

    weights: Mapping[str, nn.Parameter]
    rows: Mapping[str, nn.Parameter] = field(default_factory=dict)
    state: StateTensors = field(default_factory=dict)

    def all(self) -> dict[str, nn.Parameter]:
        """Both groups of the optimiser by name; rows are called `row/<concept>`."""
        return dict(self.weights) | {f"row/{name}": row for name, row in self.rows.items()}


class Method(Protocol):
    """A way to learn one more concept without losing the others."""

    @property
    def replays(self) -> bool:
        """Whether batches need short-term memory; where not, none is drawn for it."""

    @property
    def replay_batch(self) -> int:
        """Replayed and class pictures per step, each; 0: it looks at new pictures alone."""

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach what may change and fix what the teacher is."""

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The weighted terms of one step, one value per sample each, (B,)."""

    def end(self) -> Learned:
        """Hand over what was learned."""
