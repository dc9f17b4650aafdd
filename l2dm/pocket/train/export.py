"""Writing the parts as one ordinary diffusers folder in fp16 safetensors.

Every file appears whole or not at all.
"""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, ResNetModel

from l2dm.pocket.judge.judge import Judge, save_judge
from l2dm.pocket.train.identity import write_preprocessor
from l2dm.pocket.world.batches import to_unit
from l2dm.pocket.world.scenes import distractors, photos, pixels

STRANGERS, STRANGER_PHOTOS = 200, 5
# What the base is measured with, and its users should sample with.
STEPS, GUIDANCE = 15, 4.0
DOMAIN = {"draws": "flat 64x64 scenes of its own small world", "photographs": False}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export_part(part: nn.Module, folder: Path) -> None:
    """Save a copy in fp16.

    Its config asks for fp32, because transformers would otherwise load the stored type.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    half: Any = copy.deepcopy(part).cpu().half()
    half.to(memory_format=torch.contiguous_format)
    half.save_pretrained(partial, safe_serialization=True)
    config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # diffusers notes where a part was loaded from
    for section in (config, config.get("text_config"), config.get("vision_config")):
        if section is not None and "dtype" in section:
            section["dtype"] = "float32"
    (partial / "config.json").write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    _move_files(partial, folder)


def export_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save the tokenizer in the form that CLIPTokenizer.from_pretrained reads."""
    partial = folder.with_name(folder.name + ".partial")
    tokenizer.save_pretrained(partial)
    _move_files(partial, folder)


def export_frame(weights: Path) -> None:
    """What is no weight.

    model_index.json, the sampler, sampling.json with the recommended steps and guidance, and
    domain.json: what this base draws at all.
    """
    sampler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    sampler.save_pretrained(weights / "scheduler")
    _write(weights / "model_index.json", MODEL_INDEX)
    _write(weights / "sampling.json", {"steps": STEPS, "guidance": GUIDANCE})
    _write(weights / "domain.json", DOMAIN)


def export_clip(
    clip: CLIPModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, weights: Path
) -> None:
    """The text–image encoder on its own, and its text half and tokenizer as the pipeline's."""
    export_part(clip, weights / "clip")
    export_tokenizer(tokenizer, weights / "clip")
    write_preprocessor(weights / "clip")
    export_part(text_encoder, weights / "text_encoder")
    export_tokenizer(tokenizer, weights / "tokenizer")


def export_identity(encoder: ResNetModel, weights: Path) -> None:
    """The identity encoder with its preprocessing, and foreign identities to tell from."""
    export_part(encoder, weights / "identity")
    write_preprocessor(weights / "identity")
    export_distractors(encoder, weights / "identity")


@torch.no_grad()
def export_distractors(encoder: ResNetModel, folder: Path) -> None:
    """`distractors.safetensors`: the mean direction of a few photos of each stranger, (200, d)."""
    directions = []
    for stranger in distractors(STRANGERS):
        shots = to_unit(torch.from_numpy(pixels(photos(stranger, STRANGER_PHOTOS, seed=0))))
        features = normalize(encoder(shots).pooler_output.flatten(1).float(), dim=-1)
        directions.append(normalize(features.mean(0), dim=0))
    partial = folder / "distractors.partial"
    save_file({"features": torch.stack(directions).half()}, partial)
    os.replace(partial, folder / "distractors.safetensors")


def export_judge(judge_model: Judge, weights: Path) -> None:
    """The judge."""
    partial = weights / "judge.partial"
    save_judge(judge_model, partial)
    _move_files(partial, weights / "judge")


def _write(path: Path, content: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _move_files(partial: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone
        os.replace(file, folder / file.name)
    partial.rmdir()
