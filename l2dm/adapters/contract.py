"""What every adapter answers; one contract suite in the tests asks all of them."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from l2dm.errors import DoesNotFit


class Adapter(Protocol):
    """Weights beside a frozen network: attach, train, save, load, switch off."""

    kind: str
    changes_text: bool  # whether the text encoder's output depends on the adapter's weights

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """What the optimiser may change, by name. The only place that knows the set."""

    def state(self) -> dict[str, Tensor]:
        """Everything worth saving, detached copies on the CPU."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare names, shapes, dtypes and finiteness, then copy. Raises DoesNotFit."""

    def disabled(self) -> AbstractContextManager[None]:
        """Inside, the network is the base, bit for bit."""

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """Inside, the network serves prompts with these token ids, (B, L)."""


class NoAdapter:
    """The pretrained base itself."""

    kind = "none"
    changes_text = False

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuse any weight."""
        compare({}, state)

    def disabled(self) -> AbstractContextManager[None]:
        """No change."""
        return contextlib.nullcontext()

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """No change."""
        return contextlib.nullcontext()


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise DoesNotFit unless `given` has our names, shapes, dtypes and finite numbers."""
    missing, foreign = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or foreign:
        raise DoesNotFit(
            f"adapter weights do not match the base: missing {missing[:3]}, foreign {foreign[:3]} "
            f"({len(missing)} and {len(foreign)} in all); load it on the base it was trained on"
        )
    for name, tensor in own.items():
        found = given[name]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise DoesNotFit(
                f"adapter weight {name}: expected {tuple(tensor.shape)} {tensor.dtype}, found "
                f"{tuple(found.shape)} {found.dtype}; load it on the base it was trained on"
            )
        if not torch.isfinite(found).all():
            raise DoesNotFit(f"adapter weight {name} holds NaN or infinity; train the task again")


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Compare, then copy `given` into `own` in place."""
    compare(own, given)
    for name, tensor in own.items():
        tensor.copy_(given[name])


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, safe to save."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


@contextlib.contextmanager
def holding(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, these parameters hold other values: the teacher is the same network as the student.

    Use it without gradients and before the student's forward pass: autograd keeps references to
    the parameters, not copies.
    """
    compare(parameters, values)
    kept = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name].to(parameter.device)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]
