"""Pictures as batches of tensors."""

import torch
from torch import Tensor
from torch.nn import functional as F

from l2dm.pocket.world.render_cache import Renders


def to_unit(pictures: Tensor) -> Tensor:
    """(B, 64, 64, 3) uint8 to (B, 3, 64, 64) float in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def pick(renders: Renders, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random batch.

    Indices (B,), sorted so that the memory map is read in order, and pictures in [-1, 1].
    """
    index = torch.randint(len(renders), (batch,), generator=generator).sort().values
    return index, to_unit(torch.from_numpy(renders.pictures[index.numpy()]))


def soften(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength, so that a generated picture is no stranger.

    (B, 3, 64, 64) in [-1, 1].
    """
    draw_ = torch.rand((len(pictures), 2, 1, 1, 1), generator=generator)
    padded = F.pad(pictures, (1, 1, 1, 1), mode="reflect")
    blurred = F.avg_pool2d(padded, 3, stride=1)
    mix = (draw_[:, 0] - 0.4).clamp(min=0.0) / 0.6  # four in ten stay sharp
    noise = torch.randn(pictures.shape, generator=generator) * 0.12 * draw_[:, 1] ** 2
    return torch.lerp(pictures, blurred, mix.expand_as(pictures)) + noise
