"""Weights held against configs: what real models keep otherwise is read, what is absent named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from l2dm.bases import folder as base_folder
from l2dm.bases.checks.encoders import VISION
from l2dm.bases.checks.files import Files
from l2dm.bases.checks.tensors import require_tensors
from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base
from l2dm.errors import BadBase
from tests.worlds.hostile_bases import change

PICTURES = torch.randint(
    0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
CONFIGS: dict[str, dict[str, Any]] = {
    "beit": SMALL, "deit": SMALL, "vit": SMALL, "dinov3_vit": SMALL,
    "dinov2": {key: SMALL[key] for key in SMALL if key != "intermediate_size"},
    "dinov2_with_registers": {key: SMALL[key] for key in SMALL if key != "intermediate_size"},
    "convnext": STAGES | {"num_stages": 2}, "convnextv2": STAGES | {"num_stages": 2},
    "resnet": STAGES | {"embedding_size": 8, "layer_type": "basic"},
    "swin": {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1],
             "num_heads": [2, 2], "window_size": 2},
}  # fmt: skip


@pytest.fixture
def copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def rewrite(
    path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_the_shipped_base_fits_its_configs() -> None:
    """It is not compared again each time that it is loaded."""
    folder = base_folder.locate("pocket")
    base_folder.require_encoders(folder)
    parts = base_folder.classes(folder)
    parts |= {"clip": ("transformers", "CLIPModel"), "identity": ("transformers", "AutoModel")}
    for part, (library, kind) in parts.items():
        require_tensors(Files(folder), part, library, kind, None)


def test_names_of_older_releases_are_read(copy: Path, tiny_base: Path) -> None:
    """`text_model.` before the names of a text encoder, and positions kept as whole numbers."""
    positions = torch.arange(16).reshape(1, -1)
    rewrite(
        copy / "text_encoder/model.safetensors",
        lambda found: (
            {f"text_model.{name}": one for name, one in found.items()}
            | {"text_model.embeddings.position_ids": positions}
        ),
    )
    rewrite(
        copy / "clip/model.safetensors",
        lambda found: found | {"text_model.embeddings.position_ids": positions},
    )
    prompts = ["a dog"]
    expected = load_base(str(tiny_base)).read(prompts).states
    assert torch.equal(load_base(str(copy)).read(prompts).states, expected)
    features = load_encoders(str(tiny_base)).text(prompts)
    assert torch.equal(load_encoders(str(copy)).text(prompts), features)


def test_an_autoencoder_of_an_older_release_is_read(copy: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    vae.save_pretrained(copy / "vae")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for new, before in old.items():
            found = {name.replace(f".{new}.", f".{before}."): one for name, one in found.items()}
        return found

    rewrite(copy / "vae/diffusion_pytorch_model.safetensors", rename)
    loaded = load_base(str(copy)).networks.named()["vae"]
    assert all(
        torch.equal(one, loaded.state_dict()[name]) for name, one in vae.state_dict().items()
    )


@pytest.mark.parametrize("kind", sorted(VISION))
def test_every_vision_model_that_is_known_can_tell_things_apart(copy: Path, kind: str) -> None:
    write_identity(copy, kind)
    features = load_encoders(str(copy)).identity(PICTURES)
    assert features.shape == (2, 16)
    file = copy / "identity/model.safetensors"
    name = sorted(name for name, one in load_file(file).items() if one.ndim > 1)[0]
    rewrite(file, lambda found: {key: one for key, one in found.items() if key != name})
    with pytest.raises(BadBase, match=r"identity/: its tensors do not fit .* is missing"):
        load_encoders(str(copy))


def test_a_vision_transformer_without_pooler_is_read_by_its_first_token(copy: Path) -> None:
    """As DINO is published: the layer that it lacks was filled with random numbers."""
    from transformers import ViTModel

    write_identity(copy, "vit")
    rewrite(
        copy / "identity/model.safetensors",
        lambda found: {name: one for name, one in found.items() if "pooler" not in name},
    )
    seen = [load_encoders(str(copy)) for _ in range(2)]
    features = seen[0].identity(PICTURES)
    assert torch.equal(features, seen[1].identity(PICTURES))
    plain = ViTModel.from_pretrained(copy / "identity", add_pooling_layer=False).eval()
    with torch.no_grad():
        tokens = plain(seen[0].vision_input(PICTURES)).last_hidden_state[:, 0]
    assert torch.allclose(features, torch.nn.functional.normalize(tokens, dim=-1), atol=1e-6)


def write_identity(base: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    (base / "identity/distractors.safetensors").unlink()
    (base / "identity/model.safetensors").unlink()
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).save_pretrained(
        base / "identity"
    )


def test_weights_in_several_files_are_read(copy: Path, tiny_base: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
    (copy / "unet/diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(copy / "unet", max_shard_size="200KB")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 1
    loaded = load_base(str(copy)).denoiser.state_dict()
    assert all(torch.equal(one, loaded[name]) for name, one in unet.state_dict().items())


def test_a_hub_keeps_links_to_its_own_files(tiny_base: Path, tmp_path: Path) -> None:
    snapshot = Path(shutil.copytree(tiny_base, tmp_path / "models--a--b/snapshots/0123"))
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    for number, path in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        shutil.move(path, blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert load_base(str(snapshot)).fingerprint == base_folder.fingerprint(tiny_base)
    shutil.move(snapshot, tmp_path / "moved")
    with pytest.raises(BadBase, match="a link that leads out of it; copy what it leads to"):
        load_base(str(tmp_path / "moved"))


@pytest.mark.parametrize("at", [0, 3])
def test_the_first_tensors_of_many_are_named(copy: Path, at: int) -> None:
    file = copy / "text_encoder/model.safetensors"
    names = sorted(load_file(file))
    rewrite(file, lambda found: {name: found[name] for name in names[at + 8 :]})
    with pytest.raises(BadBase, match=f"and {at + 3} more are missing"):
        load_base(str(copy))


def test_parts_of_different_models_are_refused(copy: Path) -> None:
    change(copy / "unet/config.json", in_channels=9)
    with pytest.raises(BadBase, match=r"channels, vae/ has 4; a UNet for inpainting"):
        base_folder.check(copy)
    change(copy / "unet/config.json", in_channels=4, cross_attention_dim=32)
    with pytest.raises(BadBase, match="reads texts of width 32, text_encoder/ writes 24"):
        base_folder.check(copy)
    change(copy / "unet/config.json", cross_attention_dim=24, time_cond_proj_dim=8)
    with pytest.raises(BadBase, match="sets time_cond_proj_dim, which this architecture"):
        base_folder.check(copy)


def test_a_config_that_is_too_large_is_not_read(copy: Path) -> None:
    (copy / "unet/config.json").write_text(json.dumps({"a": "x" * (2 << 20)}))
    with pytest.raises(BadBase, match=r"unet/config\.json: expected at most 1,048,576 bytes"):
        base_folder.check(copy)


def test_a_config_of_other_kinds_is_told_once_with_its_folder(copy: Path) -> None:
    change(copy / "text_encoder/config.json", text_config="x")
    with pytest.raises(BadBase) as caught:
        base_folder.check(copy)
    assert str(caught.value).count(str(copy)) == 1
