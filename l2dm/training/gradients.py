"""Is everything that should learn reached by a gradient? Asked of every training's first steps.

A layer without a gradient goes unnoticed: the loss still falls, by what the others learn. The first
pocket base lost five of its six million parameters that way (CHANGELOG.md).
"""

from collections.abc import Mapping

import torch
from torch import nn

from l2dm.errors import NothingLearned

FIRST_STEPS = 3  # a LoRA's first factor gets its first gradient in the second step
NAMED = 5  # tensors that a message names


class GradientWatch:
    """Looks at gradients after each of the first steps, then never again.

    parameters: what the optimiser changes, by name. `look` is called between `backward` and the
    optimiser's step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._watched = dict(parameters)
        self._still = list(parameters)
        self._left = FIRST_STEPS

    def look(self) -> None:
        """Raise NothingLearned when a gradient is not finite, or was zero in every first step."""
        if not self._left:
            return
        self._left -= 1
        sums = _sums_of_sizes(self._watched)
        if wild := [name for name, size in sums.items() if not size < float("inf")]:
            raise NothingLearned(
                f"expected finite gradients in the first steps, found NaN or infinity in "
                f"{_listed(wild)}; lower the learning rate, or train in fp32"
            )
        self._still = [name for name in self._still if not sums.get(name, 0.0)]
        if not self._left and self._still:
            raise NothingLearned(
                f"expected a gradient in every trainable tensor after {FIRST_STEPS} steps, found "
                f"exactly zero in {len(self._still)} of {len(self._watched)}: "
                f"{_listed(self._still)}; the loss does not depend on them, or a kernel loses "
                "their gradient (do not use torch.compile with bf16 on a CPU)"
            )


def _sums_of_sizes(parameters: Mapping[str, nn.Parameter]) -> dict[str, float]:
    """The sum of absolute values of each gradient that there is."""
    found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if not found:
        return {}
    sums = torch.stack([gradient.detach().float().abs().sum() for gradient in found.values()])
    return dict(zip(found, sums.tolist(), strict=True))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
