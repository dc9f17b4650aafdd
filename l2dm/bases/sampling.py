"""Prompts and seeds to pictures, step for step what the base's own diffusers pipeline does."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2dm.bases.model import Model
from l2dm.bases.text import Text, concatenate
from l2dm.spec import SamplingSpec

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shot:
    """One picture to draw: a prompt and the seed of its initial noise.

    negative: what guidance leads away from; "" is what the base takes for that, no prompt at all.
    """

    prompt: str
    seed: int
    negative: str = ""


def draw(
    model: Model,
    shots: Sequence[Shot],
    spec: SamplingSpec,
    *,
    on_progress: Progress | None = None,
) -> Tensor:
    """Draw pictures, (N, 3, H, W) uint8. Equal shots give equal bytes on one machine.

    A picture may differ in its last bit between batches of different make-up, so callers that
    compare pictures between versions draw them with the same list of shots.
    """
    latents = draw_latents(model, shots, spec, on_progress=on_progress)
    return torch.cat([model.decode(part) for part in latents.split(spec.batch)])


def draw_latents(
    model: Model,
    shots: Sequence[Shot],
    spec: SamplingSpec,
    *,
    on_progress: Progress | None = None,
) -> Tensor:
    """Draw latents, (N, C, h, w), scaled as the denoiser reads them."""
    drawn: list[Tensor] = []
    for start in range(0, len(shots), spec.batch):
        part = shots[start : start + spec.batch]
        drawn.append(_denoise(model, part, spec))
        if on_progress:
            on_progress(start + len(part), len(shots))
    return torch.cat(drawn) if drawn else torch.empty(0, *model.latent_shape)


@torch.no_grad()
def _denoise(model: Model, shots: Sequence[Shot], spec: SamplingSpec) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022) around the base's sampler."""
    guidance = spec.guidance or model.guidance
    text = concatenate([_away(model, shots), model.read([shot.prompt for shot in shots])])
    sampler = model.sampler()
    sampler.set_timesteps(spec.steps or model.steps, device=model.device)
    generators = [torch.Generator().manual_seed(shot.seed) for shot in shots]
    noise = [torch.randn((1, *model.latent_shape), generator=one) for one in generators]
    latents: Tensor = torch.cat(noise).to(model.device) * sampler.init_noise_sigma
    extra = _step_options(sampler, generators)
    for timestep in sampler.timesteps:
        doubled = sampler.scale_model_input(torch.cat([latents] * 2), timestep)
        empty, prompted = model.predict(doubled, timestep, text).chunk(2)  # 2 x (B, C, h, w)
        guided = empty + guidance * (prompted - empty)
        latents = sampler.step(guided, timestep, latents, return_dict=False, **extra)[0]
    return latents.float()


def _away(model: Model, shots: Sequence[Shot]) -> Text:
    """The texts that guidance leads away from, one a shot."""
    if not any(shot.negative for shot in shots):
        return model.read_nothing(len(shots))
    return concatenate(
        [model.read([one.negative]) if one.negative else model.read_nothing(1) for one in shots]
    )


def _step_options(sampler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """Ancestral samplers draw noise at every step, from the pictures' own generators."""
    draws = "generator" in inspect.signature(sampler.step).parameters
    return {"generator": generators} if draws else {}
