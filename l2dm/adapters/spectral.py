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

from l2dm.adapters.contract import (
    AdapterSettings,
    ExportWriter,
    Host,
    copy_into,
    detached,
    one_strength,
)
from l2dm.doors import Concept
from l2dm.errors import NothingAttached

KIND = "spectral"
SHARED = True  # one for all concepts


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
        self.strength = 1.0

    def forward(self, weight: Tensor) -> Tensor:
        """weight: (c_out, ...). Returns the shifted weight, same shape."""
        if not self.enabled:
            return weight
        delta = self.delta if self.strength == 1 else self.strength * self.delta
        change = torch.relu(self.values + delta) - self.values
        return weight + ((self.left * change) @ self.right).view_as(weight)


class Spectral:
    """Spectral shifts on the linear layers and convolutions of several networks."""

    kind = KIND
    changes_text = True

    def __init__(
        self, shifts: Mapping[str, SpectralShift], modules: Mapping[str, nn.Module]
    ) -> None:
        self._shifts = shifts
        self._modules = modules

    @property
    def settings(self) -> AdapterSettings:
        """None."""
        return {}

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """`<network>.<layer>.delta`, (k,), one shift for each singular value of the layer."""
        return {f"{name}.delta": shift.delta for name, shift in self._shifts.items()}

    def state(self) -> dict[str, Tensor]:
        """Every shift, named and shaped as in `trainable`."""
        return detached(self.trainable())

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare, then copy. state: as of `state`."""
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
        """Shifts act on every prompt alike. ids: (B, L)."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def scaled(self, strengths: Mapping[str, float]) -> Iterator[None]:
        """One for all concepts: every shift times it; at 0 the frozen weight is handed through."""
        strength = one_strength(strengths)
        if strength == 0:
            with self.disabled():
                yield
            return
        try:
            for shift in self._shifts.values():
                shift.strength = strength
            yield
        finally:
            for shift in self._shifts.values():
                shift.strength = 1.0

    def export(self, to: ExportWriter) -> None:
        """Singular values are no low-rank change: the shifted weights themselves."""
        for module in self._modules.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        to.merged()


def put_on(
    host: Host,
    settings: AdapterSettings,
    generator: torch.Generator,
    concepts: Sequence[Concept] = (),
) -> Spectral:
    """On the networks that the base names, UNet and text encoder (L2DM's own choice).

    One for all concepts; nothing is drawn.
    """
    return attach(host.shifted())


def attach(networks: Mapping[str, nn.Module], *, only: Sequence[str] = ()) -> Spectral:
    """Shift every linear and convolution weight of the networks (or those whose name is in `only`).

    Raises NothingAttached when there is none.
    """
    shifts: dict[str, SpectralShift] = {}
    modules: dict[str, nn.Module] = {}
    for prefix, network in networks.items():
        for name, module in list(network.named_modules()):
            full = f"{prefix}.{name}"
            if isinstance(module, nn.Linear | nn.Conv2d) and (not only or full in only):
                shifts[full], modules[full] = SpectralShift(module.weight), module
                parametrize.register_parametrization(module, "weight", shifts[full], unsafe=False)
    if not shifts:
        raise NothingAttached(
            f"expected linear layers or convolutions to shift in {sorted(networks)}, found none"
        )
    return Spectral(shifts, modules)
