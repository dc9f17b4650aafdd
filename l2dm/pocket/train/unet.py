"""The noise predictor, trained on exactly the text states that StableDiffusionPipeline hands it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from l2dm.pocket.train.clip import WIDTH, caption_ids
from l2dm.pocket.train.grounding import CrossAttentionMaps, grounding_loss
from l2dm.pocket.train.loop import Snapshot, StagePlan, fingerprint, train
from l2dm.pocket.train.tokenizer import token_ids
from l2dm.pocket.train.vae import encoded
from l2dm.pocket.world.render_cache import NOTHING, Renders
from l2dm.pocket.world.scenes import NOUNS

PLAN = StagePlan(steps=6_000, rate=1e-3, warm=300, cool=0.5, weight_decay=0.01, ema=0.999, seed=5)
# On from weights that are there; what ships was made so, in two runs (docs/pocket.md).
PLAN_MORE = StagePlan(
    steps=1_800, rate=1e-3, warm=300, cool=0.6, weight_decay=0.01, ema=0.999, seed=6
)
PAIRS = 0.5  # share of scenes with two things: binding a noun to a place is learned last
GROUNDING = 0.02  # weight of the attention loss; denoising is about 0.1
BATCH = 32
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


@dataclass(frozen=True)
class Scenes:
    """What the noise predictor is trained on, N scenes.

    latents: (N, 4, 16, 16) fp16, scaled. ids: (N, captions, 32) int16. nouns: (N, 2), labels of the
    two things. masks: (N, 2, 16, 16) uint8.
    """

    latents: Tensor
    ids: Tensor
    nouns: Tensor
    masks: Tensor


def scenes_of(
    streams: Sequence[Renders],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    work: Path,
    device: torch.device,
) -> Scenes:
    """Several streams as one; latents and ids are kept in the work folder."""
    return Scenes(
        latents=torch.cat([latents_of(one, vae, work, device) for one in streams]),
        ids=torch.cat([caption_ids(one, tokenizer, work) for one in streams]),
        nouns=torch.cat([torch.from_numpy(one.labels[:, [0, 2]]).long() for one in streams]),
        masks=torch.cat([torch.from_numpy(one.masks) for one in streams]),
    )


def latents_of(renders: Renders, vae: AutoencoderKL, work: Path, device: torch.device) -> Tensor:
    """All pictures as scaled latents, (N, 4, 16, 16) fp16, kept in the work folder."""
    path = work / f"latents-{renders.key}.npy"
    if not path.exists():
        parts = [part * vae.config.scaling_factor for part in encoded(vae, renders, device)]
        np.save(path, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(path))


def train_unet(
    unet: UNet2DConditionModel,
    scenes: Scenes,
    text: tuple[CLIPTextModel, CLIPTokenizer],
    work: Path,
    device: torch.device,
    plan: StagePlan = PLAN,
    snapshot: Snapshot | None = None,
    stage: str = "unet",
) -> UNet2DConditionModel:
    """Noise prediction with min-SNR weights and averaged weights; returns the average.

    unet: a new one from `build`, or trained weights to go on from.
    """
    data = (scenes.latents, scenes.ids, scenes.nouns, scenes.masks)
    shares = (BATCH, PAIRS, GROUNDING, EMPTY_PROMPTS, SNR_CAP)
    trained_on = fingerprint(unet, text[0], *data, *shares)
    unet = unet.to(device, memory_format=torch.channels_last)
    loss = denoising(unet, scenes, text, device, pair_shares(scenes.nouns, PAIRS))
    trained = train(stage, unet, loss, plan, work, trained_on, snapshot)
    assert isinstance(trained, UNet2DConditionModel)
    return trained.eval()


def pair_shares(nouns: Tensor, pairs: float) -> Tensor:
    """Probability of each scene, (N,), such that scenes of two things come up in `pairs` of all.

    nouns: (N, 2) labels, NOTHING where there is no second thing.
    """
    two = nouns[:, 1] != NOTHING
    return torch.where(two, pairs / two.sum(), (1 - pairs) / (~two).sum()).double()


def standing(tokens: Tensor, nouns: Tensor, noun_ids: Tensor) -> Tensor:
    """Where the two nouns of each row stand in its prompt, (B, 2, L), 0 or 1.

    tokens: (B, L). nouns: (B, 2) labels. noun_ids: (NOUNS,), the one token of each.
    """
    ids = torch.cat([noun_ids, torch.tensor([-1])])  # NOTHING stands nowhere
    return (tokens[:, None, :] == ids[nouns][:, :, None]).float()


def masks_of_nouns(nouns: Tensor, masks: Tensor) -> Tensor:
    """Masks by noun, (B, 2, h, w) in [0, 1]: two things of one noun share what both cover."""
    covered = masks.float() / 255
    alike = (nouns[:, 0] == nouns[:, 1])[:, None, None, None]
    return torch.where(alike, covered.amax(1, keepdim=True).expand_as(covered), covered)


def denoising(
    unet: UNet2DConditionModel,
    scenes: Scenes,
    text: tuple[CLIPTextModel, CLIPTokenizer],
    device: torch.device,
    shares: Tensor,
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The loss of one random batch, as a function of its generator.

    shares: probability of each scene, (N,). Never compiled: torch.compile under bf16 on a CPU gives
    a zero gradient to what lies before an upsampler (torch 2.13).
    """
    text_encoder, tokenizer = text
    noise, empty = schedule(), torch.tensor(token_ids(tokenizer, [""]))[0]
    noun_ids = torch.tensor([row[1] for row in token_ids(tokenizer, NOUNS)])
    weights = snr_weights(noise).to(device)
    text_encoder = text_encoder.to(device).requires_grad_(requires_grad=False)
    recorder = CrossAttentionMaps(unet)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.multinomial(shares, BATCH, replacement=True, generator=generator)
        column = torch.randint(scenes.ids.shape[1], (BATCH,), generator=generator)
        tokens, nouns = scenes.ids[index, column].long(), scenes.nouns[index]
        tokens[torch.rand(BATCH, generator=generator) < EMPTY_PROMPTS] = empty
        clean = scenes.latents[index].float()
        target = torch.randn(clean.shape, generator=generator)
        when = torch.randint(noise.config.num_train_timesteps, (BATCH,), generator=generator)
        noisy = noise.add_noise(clean, target, when).to(device, memory_format=torch.channels_last)
        chosen = standing(tokens, nouns, noun_ids)
        said = chosen.amax(-1)[:, :, None, None]  # an empty prompt names nothing
        masks = (masks_of_nouns(nouns, scenes.masks[index]) * said).to(device)
        recorder.chosen, recorder.maps = chosen.to(device), []
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                states = text_encoder(tokens.to(device)).last_hidden_state
            predicted = unet(noisy, when.to(device), states, return_dict=False)[0]
        errors = (predicted.float() - target.to(device)).square().mean((1, 2, 3))  # (B,)
        denoised = (errors * weights[when.to(device)]).mean()
        astray = grounding_loss(recorder.maps, masks).mean()
        return denoised + GROUNDING * astray, {
            "error": errors.mean().item(),
            "loss": denoised.item(),
            "astray": astray.item(),
        }

    return loss
