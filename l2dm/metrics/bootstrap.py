"""Percentile bootstrap intervals of means, with an explicit generator.

Source: docs/methods.md, Scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2dm.errors import WrongShape

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval; the ends are None when one sample cannot give any."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(
    values: Sequence[float], *, generator: torch.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Interval of the mean of pictures (or prompts). Raises WrongShape without values."""
    samples = torch.tensor(_some(values, "values"), dtype=torch.float64)
    if len(samples) == 1:
        return Interval(float(samples[0]), None, None)
    return _interval(samples.mean(), _resampled_means(samples, resamples, generator))


def paired_interval(
    before: Sequence[float],
    after: Sequence[float],
    *,
    generator: torch.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of the mean of before - after; entry i of both is the same prompt and seed.

    Resampling pairs keeps what a prompt and a seed have in common out of the interval.
    """
    if len(before) != len(after):
        raise WrongShape(
            f"paired values must be equally many, found {len(before)} before and {len(after)} "
            "after; pass the pictures that both rows drew"
        )
    differences = [first - second for first, second in zip(before, after, strict=True)]
    return mean_interval(differences, generator=generator, resamples=resamples)


def hierarchical_interval(
    concepts: Sequence[Sequence[float]],
    *,
    generator: torch.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of the mean over concepts of each concept's mean over pictures.

    Every resample draws concepts, and within each drawn concept its pictures, with replacement:
    the interval holds for other concepts too, not only for other pictures of these.
    """
    groups = [torch.tensor(_some(group, "a concept"), dtype=torch.float64) for group in concepts]
    means = torch.stack([group.mean() for group in groups]) if groups else torch.empty(0)
    if not groups:
        raise WrongShape("expected values of at least one concept, found none")
    if len(groups) == 1:
        return mean_interval(concepts[0], generator=generator, resamples=resamples)
    count, sizes = len(groups), torch.tensor([len(group) for group in groups])
    padded = torch.nn.utils.rnn.pad_sequence(groups, batch_first=True)  # (K, N)
    drawn = torch.randint(count, (resamples, count), generator=generator)  # (S, K)
    chance = torch.rand((*drawn.shape, padded.shape[1]), generator=generator, dtype=torch.float64)
    picks = (chance * sizes[drawn].unsqueeze(-1)).long()  # (S, K, N), below the group's size
    wanted = torch.arange(padded.shape[1]) < sizes[drawn].unsqueeze(-1)
    chosen = padded[drawn.unsqueeze(-1), picks] * wanted
    return _interval(means.mean(), (chosen.sum(-1) / sizes[drawn]).mean(1))


def _resampled_means(samples: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    picks = torch.randint(len(samples), (resamples, len(samples)), generator=generator)
    return samples[picks].mean(1)  # (S,)


def _interval(mean: Tensor, resampled: Tensor) -> Interval:
    low, high = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Interval(float(mean), float(low), float(high))


def _some(values: Sequence[float], name: str) -> Sequence[float]:
    if not len(values):
        raise WrongShape(f"expected at least one value in {name}, found none")
    return values
