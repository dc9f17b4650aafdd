"""One checkpoint in the layout of CompVis, kohya and A1111, as a diffusers folder."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from l2dm.bases import folder as base_folder
from l2dm.bases.checks.files import Files
from l2dm.bases.checks.headers import read_header
from l2dm.errors import BadBase

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."  # Stable Diffusion 2
_NAMES = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_PARTS = {UNET: "unet", VAE: "vae", CLIP: "text_encoder"}


def convert(file: Path, like: str, out: Path) -> None:
    """Write a checkpoint of Stable Diffusion 1 or 2 as a folder.

    like: a base of the same architecture, for what no checkpoint holds: configs, scheduler, words;
    "" lets diffusers ask the hub for them. Raises BadBase.
    """
    stored = read_header(Files(file.parent).file(file.name), file.name)
    if not any(name.startswith((CLIP, OPEN_CLIP)) for name in stored) or not all(
        any(name.startswith(prefix) for name in stored) for prefix in (UNET, VAE)
    ):
        raise BadBase(
            f"{file.name}: expected a whole checkpoint of Stable Diffusion 1 or 2 ({UNET}*, "
            f"{VAE}*, cond_stage_model.*), found {_prefixes(stored)}; a LoRA or a single part is "
            "no base"
        )
    configs = _configs(like, out.parent / "like")
    with base_folder.reading(file, "the checkpoint"):
        pipeline = _converted(file, configs)
        _require_whole(pipeline, stored)
        pipeline.save_pretrained(out, safe_serialization=True)
    _write_index(out)


def _converted(file: Path, configs: Path | None) -> Any:
    import torch
    from diffusers import StableDiffusionPipeline
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    local = {"config": str(configs), "local_files_only": True} if configs else {}
    none = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    try:
        return StableDiffusionPipeline.from_single_file(
            str(file), torch_dtype=torch.float32, requires_safety_checker=False, **none, **local
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if configs is not None:
            raise
        raise BadBase(
            "expected a hub that gives configs and words, which no checkpoint holds, found "
            f"{type(error).__name__}; pass --like FOLDER with a base of the same architecture"
        ) from error


def _configs(like: str, scratch: Path) -> Path | None:
    """A copy of a base's configs and words without its weights, which must not slip in."""
    if not like:
        return None
    folder = base_folder.locate(like)
    shutil.copytree(
        folder, scratch, ignore=shutil.ignore_patterns("*.safetensors", "clip", "identity")
    )
    index = json.loads((scratch / "model_index.json").read_text())
    kept = {name: index[name] for name in index if not isinstance(index[name], list)}
    kept |= {name: index[name] for name in _NAMES if name in index}
    (scratch / "model_index.json").write_text(json.dumps(kept))
    return scratch


def _require_whole(pipeline: Any, stored: Any) -> None:
    """No weight that the checkpoint lacks, and none of its own left over."""
    problems: list[str] = []
    for prefix, part in _PARTS.items():
        network = getattr(pipeline, part)
        empty = [name for name, one in network.state_dict().items() if one.is_meta]
        if empty:
            problems.append(f"{part}: {', '.join(empty[:5])} are missing in the checkpoint")
        held = {name for name in stored if name.startswith(prefix) and not _is_buffer(name)}
        if held and len(held) != len(network.state_dict()):
            problems.append(
                f"{part}: expected {len(network.state_dict())} tensors {prefix}*, found {len(held)}"
            )
    if problems:
        raise BadBase(problems)


def _is_buffer(name: str) -> bool:
    return name.endswith((".position_ids", ".num_updates", ".decay")) or ".loss." in name


def _write_index(out: Path) -> None:
    path = out / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(
        json.dumps({n: one for n, one in index.items() if n != "_name_or_path"}, indent=1)
    )


def _prefixes(stored: Any) -> str:
    counts = Counter(name.partition(".")[0] for name in stored)
    return ", ".join(f"{name[:40]}.*" for name, _ in counts.most_common(4))
