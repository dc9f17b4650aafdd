"""Those that learn one concept together: one process alone, or one rank among several.

Several ranks do what one process does with the whole batch: every rank draws that batch, because
draws are functions of (seed, step), works on its share of every group, and adds its gradients to
those of the others. Only rank 0 writes. Results differ from one process's by rounding: sums are
taken in another order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from l2dm.methods.lesson import Batch, Examples


@dataclass(frozen=True)
class Weighed:
    """loss: what this process derives, (). means: each term over the whole batch, ()."""

    loss: Tensor
    means: Mapping[str, Tensor]


class Team(Protocol):
    """What `training.fit` asks of those it trains with."""

    rank: int
    device: torch.device

    def agree(self, parameters: Sequence[nn.Parameter]) -> None:
        """Begin with the weights of rank 0."""

    def share(self, batch: Batch) -> Batch:
        """The part of a batch that this process works on, where its model is."""

    def weigh(self, terms: Mapping[str, Tensor]) -> Weighed:
        """Terms of the share, (B,) each, as parts of the means over the whole batch."""

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give everybody the sum of all gradients, which is that of the whole batch."""


class Alone:
    """One process with the whole batch."""

    rank = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def agree(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nobody to agree with."""

    def share(self, batch: Batch) -> Batch:
        """All of it."""
        return batch.to(self.device)

    def weigh(self, terms: Mapping[str, Tensor]) -> Weighed:
        """The mean of every term, (B,) each, and their sum."""
        means = {name: values.float().mean() for name, values in terms.items()}
        return Weighed(torch.stack(list(means.values())).sum(), means)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """They are complete."""


class Rank:
    """One process of several, under accelerate's process state: gloo on CPUs, nccl on GPUs."""

    def __init__(self, state: Any) -> None:
        self.rank: int = state.process_index
        self.size: int = state.num_processes
        self.device: torch.device = state.device
        self._state = state

    def agree(self, parameters: Sequence[nn.Parameter]) -> None:
        """See Team. They began alike already where the hardware is alike."""
        from accelerate.utils import broadcast

        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(broadcast(parameter.detach().clone(), from_process=0))

    def share(self, batch: Batch) -> Batch:
        """See Team. Groups that do not divide leave the first ranks one sample more."""
        parts = (self._part(group) for group in (batch.new, batch.replay, batch.prior))
        return Batch(*parts).to(self.device)

    def weigh(self, terms: Mapping[str, Tensor]) -> Weighed:
        """See Team. A term, (B,), is divided by its samples on all ranks, not on this one.

        A group smaller than the team leaves some ranks without its terms; rank 0 has them all.
        """
        from accelerate.utils import gather_object

        sums = {name: values.float().sum() for name, values in terms.items()}
        told = {name: (sums[name].item(), len(values)) for name, values in terms.items()}
        everybody: list[dict[str, tuple[float, int]]] = gather_object([told])
        counts = {name: sum(one[name][1] for one in everybody if name in one) for name in told}
        names = dict.fromkeys(name for one in everybody for name in one)
        return Weighed(
            loss=torch.stack([sums[name] / counts[name] for name in sums]).sum(),
            means={name: _mean(one[name] for one in everybody if name in one) for name in names},
        )

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """See Team. What has a gradient nowhere keeps none, as in one process."""
        from accelerate.utils import reduce

        present = [parameter.grad is not None for parameter in parameters]
        mine = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in parameters
        ]
        flags = torch.tensor(present, dtype=torch.float32, device=self.device)
        summed: Tensor = reduce(torch.cat([*(one.flatten() for one in mine), flags]), "sum")
        *parts, anywhere = summed.split([*(one.numel() for one in mine), len(mine)])
        for parameter, part, count in zip(parameters, parts, anywhere.tolist(), strict=True):
            parameter.grad = part.view_as(parameter).clone() if count else None

    def leave(self) -> None:
        """Take leave of the others; without it the exit of a process is a warning."""
        self._state.destroy_process_group()

    def _part(self, group: Examples) -> Examples:
        each, more = divmod(len(group), self.size)
        begin = self.rank * each + min(self.rank, more)
        mine = slice(begin, begin + each + (self.rank < more))
        return Examples(
            noisy=group.noisy[mine],
            target=group.target[mine],
            timesteps=group.timesteps[mine],
            prompts=group.prompts[mine],
        )


def join() -> Rank:
    """Become one of the processes that `launch` started. One GPU each where there are any."""
    from accelerate import PartialState

    return Rank(PartialState(cpu=not torch.cuda.is_available()))


def _mean(parts: Iterable[tuple[float, int]]) -> Tensor:
    sums, counts = zip(*parts, strict=True)
    return torch.tensor(sum(sums) / sum(counts), dtype=torch.float64)
