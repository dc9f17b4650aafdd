"""What one task teaches: latents and prompts, and the batches drawn from them.

Every draw is a function of (seed, step), so that a run which is killed and resumed sees the
batches that an undisturbed run sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from l2dm import doors
from l2dm.adapters.contract import compare
from l2dm.bases.diffusion import NoiseSchedule, add_noise, generator_for, training_target
from l2dm.files.manifest import Door

StateTensors = Mapping[str, Tensor]
"""What a method keeps of its own, by name: Fisher information, folded sums, a bank."""
KEEPS = "a line keeps its method's sizes: train its tasks again with one version of the method"


@dataclass(frozen=True)
class Pool:
    """Examples to draw from. latents: (N, C, h, w); prompts: one tuple of wordings per example."""

    latents: Tensor
    prompts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Lesson:
    """One task. `new` holds the concept's pictures; `replay` short-term memory; `prior` classes.

    state: what the same method left at the parent's task; empty at a line's first task, and where
    the parent was learned by another method.
    """

    concept: doors.Concept
    parent: Door[doors.Adapter]
    new: Pool
    replay: Pool
    prior: Pool
    seed: int
    state: StateTensors = field(default_factory=dict)

    def inherited(self, fresh: StateTensors) -> dict[str, Tensor]:
        """Copies of `state`, or of `fresh` where there is none, on the devices of `fresh`.

        Raises DoesNotFit unless `state` has the names, shapes and types of `fresh`.
        """
        if self.state:
            what = f"state that method {self.parent.record.method!r} left"
            compare(fresh, self.state, what, KEEPS)
        begin = self.state or fresh
        return {name: begin[name].to(one.device, copy=True) for name, one in fresh.items()}


@dataclass(frozen=True)
class Examples:
    """One group of a batch.

    noisy, target: (B, C, h, w). timesteps: (B,) int64. prompts: B strings.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device) -> "Examples":
        """The same on another device."""
        return Examples(
            noisy=self.noisy.to(device),
            target=self.target.to(device),
            timesteps=self.timesteps.to(device),
            prompts=self.prompts,
        )


@dataclass(frozen=True)
class Batch:
    """New pictures, replayed pictures of past concepts, class pictures. Groups may be empty."""

    new: Examples
    replay: Examples
    prior: Examples

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(self.new.to(device), self.replay.to(device), self.prior.to(device))


def draw_batch(
    lesson: Lesson, schedule: NoiseSchedule, step: int, *, new: int, replay: int
) -> Batch:
    """The batch of one step: entries, wordings, noise and timesteps from (lesson.seed, step).

    new: new pictures. replay: replayed and class pictures, each. Drawn on the CPU, so that it is
    the same on every device; new pictures first, so that the others do not change them.
    """
    generator = generator_for(lesson.seed, "batch", step)

    def draw(pool: Pool, count: int) -> Examples:
        return _examples(pool, count if len(pool) else 0, schedule, generator)

    return Batch(
        new=draw(lesson.new, new),
        replay=draw(lesson.replay, replay),
        prior=draw(lesson.prior, replay),
    )


def join(groups: Sequence[Examples]) -> Examples:
    """Several groups as one, so that one forward pass serves them all."""
    return Examples(
        noisy=torch.cat([group.noisy for group in groups]),
        target=torch.cat([group.target for group in groups]),
        timesteps=torch.cat([group.timesteps for group in groups]),
        prompts=tuple(prompt for group in groups for prompt in group.prompts),
    )


def _examples(
    pool: Pool, count: int, schedule: NoiseSchedule, generator: torch.Generator
) -> Examples:
    if count == 0:
        nothing = pool.latents[:0]
        return Examples(nothing, nothing, torch.zeros(0, dtype=torch.int64), ())
    picked = torch.randint(len(pool), (count,), generator=generator)
    worded = torch.randint(1 << 30, (count,), generator=generator)
    latents = pool.latents[picked]
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(schedule.timesteps, (count,), generator=generator)
    wordings = [pool.prompts[index] for index in picked.tolist()]
    return Examples(
        noisy=add_noise(schedule, latents, noise, timesteps),
        target=training_target(schedule, latents, noise, timesteps),
        timesteps=timesteps,
        prompts=tuple(
            options[number % len(options)]
            for options, number in zip(wordings, worded.tolist(), strict=True)
        ),
    )
