"""Measurements of the shipped base, each a function from weights and pictures to numbers."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, CLIPModel, CLIPTokenizer

from l2dm.pocket.judge.judge import Judge, Judgement, judge
from l2dm.pocket.train.clip import embedded
from l2dm.pocket.world.batches import to_unit
from l2dm.pocket.world.render_cache import NOTHING, Renders
from l2dm.pocket.world.scenes import COLOURS, NOUNS, TUNING_SEEDS, identity, photos, pixels

STRANGERS, QUERIES, REFERENCES = 110, 5, 4


def article(word: str) -> str:
    """The word with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def vae_error(vae: AutoencoderKL, pictures: Tensor) -> float:
    """Mean absolute error of reconstruction, of 255. pictures: (N, 3, H, W) in [-1, 1]."""
    errors = []
    with torch.no_grad():
        for part in torch.split(pictures, 100):
            drawn = vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            errors.append((drawn - part).abs().mean() * 127.5)
    return float(torch.stack(errors).mean())


def judge_rates(judge_model: Judge, renders: Renders) -> tuple[float, float, float]:
    """Shares of right nouns, counts and colours on renders; a noun counts only at its own side."""
    verdicts = judge(judge_model, to_unit(torch.from_numpy(np.array(renders.pictures))))
    nouns, counts, colours = [], [], []
    for verdict, row in zip(verdicts, renders.labels, strict=True):
        truth = [(NOUNS[row[0]], COLOURS[row[1]])]
        if row[2] != NOTHING:
            truth.append((NOUNS[row[2]], COLOURS[row[3]]))
        counts.append(len(verdict.things) == len(truth))
        for seen, (noun, colour) in zip(verdict.things, truth, strict=False):
            nouns.append(seen.noun == noun)
            colours.append(seen.colour == colour)
    return float(np.mean(nouns)), float(np.mean(counts)), float(np.mean(colours))


@torch.no_grad()
def identity_features(folder: Path, pictures: Tensor) -> Tensor:
    """Normalised pooled features of any vision folder, (B, D); pictures in [-1, 1]."""
    encoder = AutoModel.from_pretrained(folder).eval()
    parts = [encoder(part).pooler_output.flatten(1) for part in torch.split(pictures, 200)]
    return F.normalize(torch.cat(parts), dim=-1)


def identity_rate(folder: Path) -> float:
    """Right identity among 110 from one held-out photo; each is known by 4 others."""
    subjects = [identity(TUNING_SEEDS[i], NOUNS[i % len(NOUNS)]) for i in range(STRANGERS)]
    known = np.concatenate([pixels(photos(subject, REFERENCES, 0)) for subject in subjects])
    asked = np.concatenate([pixels(photos(subject, QUERIES, 1)) for subject in subjects])
    gallery = (
        identity_features(folder, to_unit(torch.from_numpy(known)))
        .view(STRANGERS, REFERENCES, -1)
        .mean(1)
    )
    nearest = (
        identity_features(folder, to_unit(torch.from_numpy(asked))) @ F.normalize(gallery, dim=-1).T
    ).argmax(-1)
    truth = torch.arange(STRANGERS).repeat_interleave(QUERIES)
    return float((nearest == truth).float().mean())


def retrieval_rate(weights: Path, renders: Renders) -> float:
    """Caption to picture among 100 scenes, full captions, mean over blocks."""
    clip = CLIPModel.from_pretrained(weights / "clip").eval()
    tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
    rates = []
    for start in range(0, min(len(renders), 1_000), 100):
        pictures = to_unit(torch.from_numpy(np.array(renders.pictures[start : start + 100])))
        captions = [row[0] for row in renders.captions[start : start + 100]]
        text, image = embedded(clip, tokenizer, captions, pictures)
        rates.append(((text @ image.T).argmax(-1) == torch.arange(len(text))).float().mean())
    return float(torch.stack(rates).mean())


@torch.no_grad()
def image_features(weights: Path, pictures: Tensor) -> Tensor:
    """Normalised CLIP image features, (B, d); pictures: (B, 3, 64, 64) in [-1, 1]."""
    clip = CLIPModel.from_pretrained(weights / "clip").eval()
    parts = [
        clip.visual_projection(clip.vision_model(part).pooler_output)
        for part in torch.split(pictures, 200)
    ]
    return F.normalize(torch.cat(parts), dim=-1)


def load_pipeline(weights: Path) -> StableDiffusionPipeline:
    """The shipped folder as anyone would load it."""
    pipeline = StableDiffusionPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    steps: int,
    guidance: float,
    seed: int = 0,
) -> Tensor:
    """One picture a prompt, (B, 3, 64, 64) in [-1, 1], 64 at a time.

    Picture i starts from noise of seed + i.
    """
    parts = []
    for start in range(0, len(prompts), 64):
        some = list(prompts[start : start + 64])
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(some))]
        drawn = pipeline(
            some,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
            height=64,
            width=64,
            output_type="np",
        ).images
        parts.append(torch.from_numpy(drawn).permute(0, 3, 1, 2).float() * 2 - 1)
    return torch.cat(parts)


def single_prompts() -> list[tuple[str, str, str]]:
    """(prompt, colour, noun) over all pairs."""
    return [(f"a photo of {article(f'{c} {n}')}", c, n) for n in NOUNS for c in COLOURS]


def single_rates(
    verdicts: Sequence[Judgement], asked: Sequence[tuple[str, str, str]]
) -> tuple[float, float]:
    """Shares of pictures that show the noun, and that show it in the colour."""
    noun = [n in verdict.nouns for verdict, (_, _, n) in zip(verdicts, asked, strict=True)]
    colour = [verdict.colour_of(n) == c for verdict, (_, c, n) in zip(verdicts, asked, strict=True)]
    return float(np.mean(noun)), float(np.mean(colour))


def pair_prompts(n: int) -> list[tuple[str, tuple[str, str], tuple[str, str]]]:
    """N prompts for two things of different nouns and colours.

    (prompt, (colour, noun), (colour, noun)).
    """
    rng = random.Random("pairs")
    rows = []
    for _ in range(n):
        nouns, colours = rng.sample(NOUNS, 2), rng.sample(COLOURS, 2)
        left, right = (colours[0], nouns[0]), (colours[1], nouns[1])
        rows.append(
            (f"a photo of {article(' '.join(left))} and {article(' '.join(right))}", left, right)
        )
    return rows


def pair_rates(
    verdicts: Sequence[Judgement], asked: Sequence[tuple[str, tuple[str, str], tuple[str, str]]]
) -> tuple[float, float]:
    """Shares of pictures that show both nouns, and both in their own colours."""
    both, bound = [], []
    for verdict, (_, left, right) in zip(verdicts, asked, strict=True):
        both.append(left[1] in verdict.nouns and right[1] in verdict.nouns)
        bound.append(all(verdict.colour_of(noun) == colour for colour, noun in (left, right)))
    return float(np.mean(both)), float(np.mean(bound))
