"""Can the base be taught? The simplest lesson (K/V LoRA, one token row), only to measure it by.

The project's methods live in `l2dm.methods`; this probe shares nothing with them, so that a
mistake there cannot flatter the base, nor the other way round.
"""

import time
from collections.abc import Sequence

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from l2dm.pocket.train.tokenizer import token_ids
from l2dm.pocket.world.batches import to_unit
from l2dm.pocket.world.scenes import pixels
from l2dm.training.gradients import GradientWatch

RANK, BATCH = 8, 8
RATE, ROW_RATE = 3e-3, 5e-3
TEMPLATES = ("a photo of a {} {}", "a picture of a {} {}", "a {} {}")


def teach(
    pipeline: StableDiffusionPipeline,
    photos: Sequence[Image.Image],
    word: str,
    noun: str,
    steps: int,
    seed: int = 0,
) -> None:
    """Teach the pipeline in place that "WORD NOUN" is what the photos show."""
    torch.manual_seed(seed)
    row = _new_word(pipeline, word, noun)
    unet, noise = pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config)
    unet.requires_grad_(requires_grad=False)
    unet.add_adapter(
        LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["attn2.to_k", "attn2.to_v"])
    )
    adapter = [weight for weight in unet.parameters() if weight.requires_grad]
    table = pipeline.text_encoder.get_input_embeddings().weight
    table.requires_grad_(requires_grad=True)
    optimiser = torch.optim.AdamW(
        [{"params": adapter, "lr": RATE}, {"params": [table], "lr": ROW_RATE}], weight_decay=0.0
    )
    latents = _latents(pipeline, photos)
    watch = GradientWatch({"row": table} | {str(i): one for i, one in enumerate(adapter)})
    tokens = torch.tensor(
        token_ids(pipeline.tokenizer, [template.format(word, noun) for template in TEMPLATES])
    )
    for _ in range(steps):
        clean = latents[torch.randint(len(latents), (BATCH,))]
        target, when = (
            torch.randn_like(clean),
            torch.randint(noise.config.num_train_timesteps, (BATCH,)),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = pipeline.text_encoder(
                tokens[torch.randint(len(tokens), (BATCH,))]
            ).last_hidden_state
            predicted = unet(noise.add_noise(clean, target, when), when, states).sample
        optimiser.zero_grad()
        (predicted.float() - target).square().mean().backward()
        kept = torch.zeros_like(table)
        kept[row] = table.grad[row]  # only the new row learns
        table.grad = kept
        watch.look()
        optimiser.step()
    table.requires_grad_(requires_grad=False)


def training_pace(
    pipeline: StableDiffusionPipeline, photos: Sequence[Image.Image], steps: int = 50
) -> float:
    """Seconds that 200 steps of the lesson take."""
    start = time.monotonic()
    teach(pipeline, photos, "<pace>", "dog", steps)
    return (time.monotonic() - start) * 200 / steps


def _new_word(pipeline: StableDiffusionPipeline, word: str, noun: str) -> int:
    """Add a token whose row starts as the noun's; returns its id."""
    pipeline.tokenizer.add_tokens([word])
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer), mean_resizing=False)
    row = int(pipeline.tokenizer.convert_tokens_to_ids(word))
    table = pipeline.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[row] = table[pipeline.tokenizer(noun).input_ids[1]]
    return row


@torch.no_grad()
def _latents(pipeline: StableDiffusionPipeline, photos: Sequence[Image.Image]) -> Tensor:
    """Scaled latents of the photos and of their mirror images, (2N, 4, 16, 16)."""
    pictures = to_unit(torch.from_numpy(pixels(list(photos))))
    both = torch.cat([pictures, pictures.flip(-1)])
    mean = pipeline.vae.encode(both).latent_dist.mean
    scaled: Tensor = mean * pipeline.vae.config.scaling_factor
    return scaled
