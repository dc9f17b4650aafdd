"""A base as one checkpoint with the names of CompVis, as kohya and A1111 keep models."""

import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def write(base: Path, file: Path, layers: int = 1) -> Path:
    """Write a diffusers folder's weights as one file. layers: of each of the UNet's blocks."""
    tensors: dict[str, Tensor] = {}
    for name, one in load_file(base / "unet/diffusion_pytorch_model.safetensors").items():
        tensors[f"model.diffusion_model.{unet_name(name, layers)}"] = one
    blocks = 2
    for name, one in load_file(base / "vae/diffusion_pytorch_model.safetensors").items():
        tensors[f"first_stage_model.{vae_name(name, blocks)}"] = one
    for name, one in load_file(base / "text_encoder/model.safetensors").items():
        tensors[f"cond_stage_model.transformer.text_model.{name}"] = one
    save_file(tensors, file)
    return file


def unet_name(name: str, layers: int) -> str:
    for ours, theirs in UNET.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    name = re.sub(r"(resnets\.\d+)\.(\w+)", lambda m: f"{m[1]}.{RESNET[m[2]]}", name)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        place = 2 * int(found[2]) if found[1] == "resnets" else 1
        return f"middle_block.{place}.{found[3]}"
    found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    block, kind, index = int(found[2]) * (layers + 1), found[3], int(found[4])
    if kind == "downsamplers":
        return f"input_blocks.{1 + block + layers}.0.op.{found[5].removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{block + layers}.1.{found[5]}"
    side, first = ("input", 1) if found[1] == "down" else ("output", 0)
    return f"{side}_blocks.{first + block + index}.{int(kind == 'attentions')}.{found[5]}"


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}", name)
    name = re.sub(r"resnets\.(\d+)", r"block.\1", name)
    return name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
