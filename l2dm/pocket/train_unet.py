"""The noise predictor, trained on exactly the text states that StableDiffusionPipeline hands it."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from l2dm.pocket.data import NOTHING, Renders
from l2dm.pocket.loop import Plan, Snapshot, train
from l2dm.pocket.tokenizer import token_ids
from l2dm.pocket.train_clip import WIDTH, caption_ids
from l2dm.pocket.train_vae import encoded

log = logging.getLogger(__name__)

PLAN = Plan(steps=6_000, rate=1e-3, warm=300, cool=0.5, weight_decay=0.01, ema=0.999, seed=5)
# A warm restart (Loshchilov & Hutter, 2017) on the weights that the first cycle shipped.
SECOND_PLAN = Plan(
    steps=4_500, rate=1e-3, warm=300, cool=0.75, weight_decay=0.01, ema=0.999, seed=7
)
SECOND_PAIRS = 0.4  # share of scenes with two things in it; their smaller shapes are learned last
BATCH = 64
EMPTY_PROMPTS = 0.1  # share trained without a prompt, for classifier-free guidance
SNR_CAP = 5.0  # Hang et al. (2023), min-SNR-5


def build() -> UNet2DConditionModel:
    """Cross-attention at 16×16 and 8×8 (and in the middle), 6.0 M parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads, as in SD 1.x
    )


def schedule() -> DDPMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def snr_weights(noise: DDPMScheduler) -> Tensor:
    """min(SNR, cap) / SNR for each of the 1,000 timesteps.

    The min-SNR weight of a noise-prediction loss.
    """
    signal = noise.alphas_cumprod
    ratio: Tensor = signal / (1 - signal)
    return ratio.clamp(max=SNR_CAP) / ratio


def latents_of(renders: Renders, vae: AutoencoderKL, work: Path, device: torch.device) -> Tensor:
    """All pictures as scaled latents, (N, 4, 16, 16) fp16, kept in the work folder."""
    path = work / f"latents-{len(renders)}.npy"
    if not path.exists():
        parts = [part * vae.config.scaling_factor for part in encoded(vae, renders, device)]
        np.save(path, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(path))


def train_unet(
    renders: Renders,
    parts: tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer],
    work: Path,
    device: torch.device,
    plan: Plan = PLAN,
    snapshot: Snapshot | None = None,
) -> UNet2DConditionModel:
    """Noise prediction with min-SNR weights and averaged weights; returns the average."""
    torch.manual_seed(plan.seed)
    unet = build().to(device, memory_format=torch.channels_last)
    return _trained("unet", unet, (renders, parts, work, device), plan, snapshot)


def train_unet_again(
    unet: UNet2DConditionModel,
    renders: Renders,
    parts: tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer],
    work: Path,
    device: torch.device,
    plan: Plan = SECOND_PLAN,
    snapshot: Snapshot | None = None,
) -> UNet2DConditionModel:
    """A second cycle on the first one's average, with more scenes of two things."""
    unet = unet.to(device, memory_format=torch.channels_last)
    return _trained(
        "unet-second", unet, (renders, parts, work, device), plan, snapshot, pairs=SECOND_PAIRS
    )


def _trained(
    name: str,
    unet: UNet2DConditionModel,
    data: tuple[Renders, tuple[AutoencoderKL, CLIPTextModel, CLIPTokenizer], Path, torch.device],
    plan: Plan,
    snapshot: Snapshot | None,
    pairs: float | None = None,
) -> UNet2DConditionModel:
    renders, (vae, text_encoder, tokenizer), work, device = data
    loss = denoising(
        unet,
        (latents_of(renders, vae, work, device), caption_ids(renders, tokenizer, work)),
        text_encoder,
        tokenizer,
        device,
        shares=None if pairs is None else pair_shares(renders, pairs),
    )
    trained = train(name, unet, loss, plan, work, snapshot)
    assert isinstance(trained, UNet2DConditionModel)
    return trained.eval()


def pair_shares(renders: Renders, pairs: float) -> Tensor:
    """Probability of each scene, (N,), such that scenes of two things come up in `pairs` of all."""
    two = torch.from_numpy(renders.labels[:, 2] != NOTHING)
    return torch.where(two, pairs / two.sum(), (1 - pairs) / (~two).sum()).double()


def denoising(
    unet: UNet2DConditionModel,
    data: tuple[Tensor, Tensor],
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    shares: Tensor | None = None,
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The loss of one random batch, as a function of its generator.

    data: latents (N, 4, 16, 16) and ids (N, captions, 32); shares: probability of each scene (N,),
    None for even ones.
    """
    latents, ids = data
    noise, empty = schedule(), torch.tensor(token_ids(tokenizer, [""]))[0]
    weights = snr_weights(noise).to(device)
    text_encoder = text_encoder.to(device).requires_grad_(requires_grad=False)
    # Plain products instead of the fused kernel, whose backward on a CPU takes three times as long.
    unet.set_attn_processor(AttnProcessor())
    compiled = (
        torch.compile(unet) if shutil.which("g++") else unet
    )  # a fifth faster on a CPU, same weights

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if shares is None:
            index = torch.randint(len(latents), (BATCH,), generator=generator)
        else:
            index = torch.multinomial(shares, BATCH, replacement=True, generator=generator)
        column = torch.randint(ids.shape[1], (BATCH,), generator=generator)
        tokens = ids[index, column].long()
        tokens[torch.rand(BATCH, generator=generator) < EMPTY_PROMPTS] = empty
        clean = latents[index].float()
        target = torch.randn(clean.shape, generator=generator)
        when = torch.randint(noise.config.num_train_timesteps, (BATCH,), generator=generator)
        noisy = noise.add_noise(clean, target, when).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                states = text_encoder(tokens.to(device)).last_hidden_state
            predicted = compiled(noisy, when.to(device), states, return_dict=False)[0]
        errors = (predicted.float() - target.to(device)).square().mean((1, 2, 3))  # (B,)
        value = (errors * weights[when.to(device)]).mean()
        return value, {"error": errors.mean().item(), "loss": value.item()}

    return loss
