"""The autoencoder: 64×64 pictures to 16×16×4 latents and back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from l2dm.pocket.train.loop import StagePlan, fingerprint, train
from l2dm.pocket.world.batches import pick, to_unit
from l2dm.pocket.world.render_cache import Renders

PLAN = StagePlan(steps=4_200, rate=2e-3)
DECODER_PLAN = StagePlan(steps=4_800, rate=1e-3, warm=100, cool=0.9, seed=6)
BATCH = 16
KL_WEIGHT = 1e-3  # on the divergence a pixel: keeps latents near unit scale without blurring


def build() -> AutoencoderKL:
    """Factor 4, 4 latent channels, no attention: about 0.6 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        sample_size=64,
        mid_block_add_attention=False,
    )


def train_vae(
    renders: Renders, work: Path, device: torch.device, plan: StagePlan = PLAN
) -> AutoencoderKL:
    """Mean absolute error plus a light divergence.

    The scaling factor is measured at the end and put in the config.
    """
    torch.manual_seed(plan.seed)
    vae = build().to(device)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        _, pictures = pick(renders, BATCH, generator)
        pictures = pictures.to(device)
        noise = torch.randn((BATCH, 4, 16, 16), generator=generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            drawn = vae.decode(posterior.mean + posterior.std * noise).sample
        error = (drawn.float() - pictures).abs().mean()
        divergence = posterior.kl().float().mean() / pictures[0].numel()
        return error + KL_WEIGHT * divergence, {
            "error of 255": error.item() * 127.5,
            "kl": divergence.item(),
        }

    trained = train("vae", vae, loss, plan, work, fingerprint(renders.key, BATCH, KL_WEIGHT))
    assert isinstance(trained, AutoencoderKL)
    trained.register_to_config(scaling_factor=measured_scale(trained, renders, device))
    return trained.eval()


def refine_decoder(
    vae: AutoencoderKL,
    renders: Renders,
    work: Path,
    device: torch.device,
    plan: StagePlan = DECODER_PLAN,
) -> AutoencoderKL:
    """Train the decoder alone: latents stay as they are, so nothing trained on them goes stale."""
    vae = vae.to(device)
    half = nn.ModuleList([vae.post_quant_conv, vae.decoder])

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        _, pictures = pick(renders, BATCH, generator)
        pictures = pictures.to(device)
        noise = torch.randn((BATCH, 4, 16, 16), generator=generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                posterior = vae.encode(pictures).latent_dist
            drawn = vae.decode(posterior.mean + posterior.std * noise).sample
        error = (drawn.float() - pictures).abs().mean()
        return error, {"error of 255": error.item() * 127.5}

    # the decoder's own weights are no part of it: those of a finished stage are exported over them
    trained_on = fingerprint(renders.key, BATCH, vae.encoder, vae.quant_conv)
    train("decoder", half, loss, plan, work, trained_on)
    return vae.eval()


def measured_scale(vae: AutoencoderKL, renders: Renders, device: torch.device) -> float:
    """One over the standard deviation of latents, from the first 2,000 pictures."""
    latents = torch.cat(list(encoded(vae, renders, device, limit=2_000)))
    return 1.0 / float(latents.float().std())


def encoded(
    vae: AutoencoderKL, renders: Renders, device: torch.device, limit: int | None = None
) -> Iterator[Tensor]:
    """Posterior means in batches of 200, (200, 4, 16, 16) fp16, unscaled."""
    for start in range(0, limit or len(renders), 200):
        part = np.array(renders.pictures[start : start + 200])  # a copy: the map is read-only
        pictures = to_unit(torch.from_numpy(part)).to(device)
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            yield vae.encode(pictures).latent_dist.mean.half().cpu()
