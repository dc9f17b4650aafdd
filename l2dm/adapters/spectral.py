"""Spectral shifts: only the singular values of a frozen weight move.

W' = U diag(ReLU(sigma + delta)) V^T, delta = 0 at first; SVDiff (Han et al. 2023), Eq. 2. Written
as W + U diag(ReLU(sigma + delta) - sigma) V^T, which is W bit for bit while delta is zero.
Convolutions are read as matrices (c_out, c_in * kh * kw).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from l2dm.adapters.contract import copy_into, detached
from l2dm.errors import NothingAttached


class SpectralShift(nn.Module):
    """Shift of the singular values of one weight matrix. delta: (min(c_out, c_in * kh * kw),)."""

    left: Tensor
    values: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left, values, right = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.delta = nn.Parameter(torch.zeros_like(values))
        self.enabled = True

    def forward(self, weight: Tensor) -> Tensor:
        """weight: (c_out, ...). Returns the shifted weight, same shape."""
        if not self.enabled:
            return weight
        change = torch.relu(self.values + self.delta) - self.values
        return weight + ((self.left * change) @ self.right).view_as(weight)


class Spectral:
    """Spectral shifts on the linear layers and convolutions of several networks."""

    kind = "spectral"
    changes_text = True

    def __init__(self, shifts: Mapping[str, SpectralShift]) -> None:
        self._shifts = shifts

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """`<network>.<layer>.delta`."""
        return {f"{name}.delta": shift.delta for name, shift in self._shifts.items()}

    def state(self) -> dict[str, Tensor]:
        """Every shift."""
        return detached(self.trainable())

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare, then copy."""
        copy_into(self.trainable(), state)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """The base, bit for bit: the parametrisation hands the frozen weight through."""
        for shift in self._shifts.values():
            shift.enabled = False
        try:
            yield
        finally:
            for shift in self._shifts.values():
                shift.enabled = True

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """Shifts act on every prompt alike."""
        return contextlib.nullcontext()


def attach(networks: Mapping[str, nn.Module], *, only: Sequence[str] = ()) -> Spectral:
    """Shift every linear and convolution weight of the networks (or those whose name is in `only`).

    Raises NothingAttached when there is none.
    """
    shifts: dict[str, SpectralShift] = {}
    for prefix, network in networks.items():
        for name, module in list(network.named_modules()):
            full = f"{prefix}.{name}"
            if isinstance(module, nn.Linear | nn.Conv2d) and (not only or full in only):
                shifts[full] = SpectralShift(module.weight)
                parametrize.register_parametrization(module, "weight", shifts[full], unsafe=False)
    if not shifts:
        raise NothingAttached(
            f"expected linear layers or convolutions to shift in {sorted(networks)}, found none"
        )
    return Spectral(shifts)
