"""The forward process: add noise, what the UNet must predict, and draws that resume exactly."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from l2dm.files.shapes import expect_shape


@dataclass(frozen=True)
class NoiseSchedule:
    """alphas_cumprod: (T,), abar_t of DDPM. prediction: what the base was trained to predict."""

    alphas_cumprod: Tensor
    prediction: Literal["epsilon", "v_prediction"]

    @property
    def timesteps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)


def add_noise(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps.

    latents, noise: (B, C, H, W). timesteps: (B,) in [0, T). Returns (B, C, H, W). DDPM Eq. 4.
    """
    expect_shape(noise, "B C H W", name="noise", like=latents)
    signal, spread = _coefficients(schedule, timesteps)
    return signal * latents + spread * noise


def training_target(
    schedule: NoiseSchedule, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """What the UNet should output: the noise, or v = sqrt(abar) eps - sqrt(1 - abar) z_0.

    Shapes as in `add_noise`. v: Salimans and Ho 2022, section 4.
    """
    if schedule.prediction == "epsilon":
        return noise
    signal, spread = _coefficients(schedule, timesteps)
    return signal * noise - spread * latents


def derive_seed(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that is a function of `seed` and the parts, the same on every machine.

    Random draws of step s use derive_seed(seed, s), so a resumed run draws what an undisturbed
    one would have drawn.
    """
    text = ":".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator seeded with `derive_seed(seed, *parts)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def _coefficients(schedule: NoiseSchedule, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    kept = schedule.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()
