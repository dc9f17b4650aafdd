"""LoRA through peft: what we save is what diffusers, ComfyUI and A1111 read.

W' = W + B A with A (r, d_in), B (d_out, r); Hu et al. 2021. alpha equals the rank, so the scale
is 1, and a file that lost its alpha on the way still loads right.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

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

KIND = "lowrank"
SHARED = True  # one for all concepts
NAME = "l2dm"  # peft's name for our adapter; not part of any weight's name


class LowRank:
    """A peft LoRA on given linear layers of one network."""

    kind = KIND
    changes_text = False

    def __init__(self, network: nn.Module, rank: int) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._rank = rank
        self._layers = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, BaseTunerLayer)
        }

    @property
    def settings(self) -> AdapterSettings:
        """The rank."""
        return {"rank": self._rank}

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Named as in diffusers: `<layer>.lora_A.weight`, (r, d_in), and lora_B, (d_out, r)."""
        found = {}
        for name, layer in self._layers.items():
            found[f"{name}.lora_A.weight"] = layer.lora_A[NAME].weight
            found[f"{name}.lora_B.weight"] = layer.lora_B[NAME].weight
        return found

    def state(self) -> dict[str, Tensor]:
        """Every LoRA weight, named and shaped as in `trainable`."""
        return detached(self.trainable())

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare, then copy. state: as of `state`."""
        copy_into(self.trainable(), state)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """The base, bit for bit: peft skips its path altogether."""
        flags = {name: p.requires_grad for name, p in self.trainable().items()}
        for layer in self._layers.values():
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.enable_adapters(True)
            for name, parameter in self.trainable().items():  # peft switches them as well
                parameter.requires_grad_(flags[name])

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """LoRA acts on every prompt alike. ids: (B, L)."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def scaled(self, strengths: Mapping[str, float]) -> Iterator[None]:
        """One for all concepts: W + s B A; at 0 peft's path is skipped."""
        strength = one_strength(strengths)
        if strength == 0:
            with self.disabled():
                yield
            return
        before = {name: layer.scaling[NAME] for name, layer in self._layers.items()}
        try:
            for name, layer in self._layers.items():
                layer.scaling[NAME] = before[name] * strength
            yield
        finally:
            for name, layer in self._layers.items():
                layer.scaling[NAME] = before[name]

    def export(self, to: ExportWriter) -> None:
        """As it is."""
        to.lora(self.state(), self._rank)


def put_on(
    host: Host,
    settings: AdapterSettings,
    generator: torch.Generator,
    concepts: Sequence[Concept] = (),
) -> LowRank:
    """On the layers that make keys and values of text; one for all concepts."""
    rank = int(settings["rank"])
    return attach(host.denoiser, list(host.text_layers()), rank=rank, generator=generator)


def attach(
    network: nn.Module, targets: Sequence[str], *, rank: int, generator: torch.Generator
) -> LowRank:
    """Wrap the linear layers named `targets`; at first the network's output is unchanged.

    A is uniform within 1/sqrt(d_in), as loralib and peft begin it, B is zero. Raises
    NothingAttached when a target is not there.
    """
    from peft import LoraConfig, inject_adapter_in_model

    known = dict(network.named_modules())
    absent = [name for name in targets if not isinstance(known.get(name), nn.Linear)]
    if absent or not targets:
        raise NothingAttached(
            f"expected linear layers to adapt, found none named {absent or list(targets)}; "
            "the base has no such cross-attention"
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft speaks about tokenizers and keys not ours
        inject_adapter_in_model(config, network, adapter_name=NAME)
    adapter = LowRank(network, rank)
    with torch.no_grad():
        for name, parameter in adapter.trainable().items():
            if ".lora_A." in name:
                bound = parameter.shape[1] ** -0.5
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
            else:
                parameter.zero_()
            parameter.requires_grad_(True)
    return adapter
