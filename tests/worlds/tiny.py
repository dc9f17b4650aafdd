"""A tiny random Stable Diffusion folder with encoders: all but the knowledge. 16x16 pictures."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

if TYPE_CHECKING:
    from l2dm import doors
    from l2dm import spec as specs

WORDS = ("a", "photo", "picture", "of", "dog", "cat", "cup", "and", "in", "the", "red", "blue")


def base(folder: Path, seed: int = 0) -> Path:
    """Write the folder and return it."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    tokenizer = _tokenizer(folder)
    vocab = len(tokenizer.get_vocab())
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16, mid_block_add_attention=False, scaling_factor=0.5,
    )  # fmt: skip
    clip = _clip(vocab, ids)
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(
        {key: clip.text_model.state_dict()[key] for key in text.state_dict()}, strict=True
    )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    clip.save_pretrained(folder / "clip")
    _identity(folder / "identity")
    index = {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "safety_checker": [None, None], "feature_extractor": [None, None],
        "requires_safety_checker": False, "image_encoder": [None, None],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    (folder / "sampling.json").write_text(json.dumps({"steps": 3, "guidance": 2.0}))
    torch.set_rng_state(generator_state)
    return folder


def second_task(root: Path, base: str, settings: Sequence[str]) -> dict[str, Path]:
    """Doors of a second task, ready to train: folders by name; `root/empty` is the first parent."""
    from l2dm import doors, steps
    from l2dm import spec as specs

    spec = specs.override(specs.Spec(), settings)
    parent = steps.empty_release(root / "empty", "pets", base).folder
    for number, concept in enumerate((doors.Concept("rex", "dog"), doors.Concept("tom", "cat"))):
        context = steps.Context(base, "pets", f"t{number + 1:04d}", number, spec)
        uploaded = upload(root, root / "inbox", concept, spec)
        at = root / str(number) if number == 0 else root
        made = {"task": at / "task", "parent": parent}
        steps.intake(uploaded, parent, made["task"], context)
        made |= {name: at / name for name in ("prior", "memory")}
        steps.generate_prior(made["task"], parent, made["prior"], context)
        steps.score_memory(made["task"], parent, made["memory"], context)
        if number == 0:
            steps.train(*made.values(), at / "adapter", context)
            steps.evaluate(*made.values(), at / "adapter", at / "scores", context)
            steps.promote(
                made["task"], parent, made["memory"], at / "adapter", at / "scores",
                at / "release", context,
            )  # fmt: skip
            parent = at / "release"
    return made


def upload(root: Path, inbox: Path, concept: "doors.Concept", spec: "specs.Spec") -> Path:
    """An upload of three pictures, drawn into a folder below `root`."""
    from l2dm.uploads.folder import write_upload

    folder = root / "pictures" / concept.name
    folder.mkdir(parents=True)
    for index in range(3):
        noise = random.Random(f"{concept.name} {index}").randbytes(192)
        small = Image.frombytes("RGB", (8, 8), noise)
        small.resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{index}.png")
    uploaded = inbox / "pets" / concept.name
    write_upload(uploaded, folder, "pets", concept, spec.intake, {})
    return uploaded


def _tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab, merges = {}, []
    for token in ["<|startoftext|>"] + letters + [f"{letter}</w>" for letter in letters]:
        vocab[token] = len(vocab)
    for word in WORDS:
        if word.isalpha() and len(word) > 1:
            parts = [*word[:-1], f"{word[-1]}</w>"]
            while len(parts) > 1:
                pair = (parts[0], parts[1])
                if pair not in merges:
                    merges.append(pair)
                parts = [parts[0] + parts[1], *parts[2:]]
                vocab.setdefault(parts[0], len(vocab))
    vocab["<|endoftext|>"] = len(vocab)
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token="<|startoftext|>", eos_token="<|endoftext|>",
        unk_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=16,
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer


def _clip(vocab: int, ids: dict[str, int]):  # type: ignore[no-untyped-def]
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        vocab_size=vocab, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=12,
        pad_token_id=ids["eos_token_id"], **ids,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=12,
    )  # fmt: skip
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    )


def _identity(folder: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        )
    )
    features = torch.nn.functional.normalize(
        torch.randn(100, 16, generator=torch.Generator().manual_seed(3)), dim=-1
    )
    save_file({"features": features}, folder / "distractors.safetensors")
