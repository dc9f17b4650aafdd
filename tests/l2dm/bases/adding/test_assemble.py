"""Bases put together from folders, single checkpoints and encoders that lie elsewhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from l2dm.bases import folder as base_folder
from l2dm.bases.adding.assemble import BaseOrigin, put_together
from l2dm.bases.adding.trial import try_out
from l2dm.bases.model import load_base
from l2dm.errors import BadBase
from tests.worlds import original_layout


@pytest.fixture
def bare(tiny_base: Path, tmp_path: Path) -> Path:
    """A base as others publish it: no encoders, and files that nobody here reads."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "bare"))
    for part in ("clip", "identity"):
        shutil.move(folder / part, tmp_path / part)
    (folder / "unet/old.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("read me")
    (folder / "safety_checker").mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_with_what_we_read(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert put_together(str(tiny_base), [], "", out) == BaseOrigin(
        tiny_base.name, "its own", "its own"
    )
    assert names(out) == names(tiny_base)
    assert base_folder.fingerprint(out) == base_folder.fingerprint(tiny_base)


def test_encoders_come_from_elsewhere(bare: Path, tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encoders = [str(tmp_path / "identity"), "pocket"]
    origin = put_together(str(bare), encoders, "", out)
    assert (origin.clip, origin.identity) == ("pocket", "identity")
    assert base_folder.fingerprint(out) == base_folder.fingerprint(tiny_base)
    assert not {name for name in names(out) if name.endswith((".bin", ".md"))}
    assert (out / "clip/tokenizer.json").is_file()
    facts = try_out(out)
    assert (facts["resolution"], facts["prediction"]) == (16, "epsilon")
    assert facts["fingerprint"] == base_folder.fingerprint(out)


def test_a_clip_without_words_brings_those_of_its_base(
    bare: Path, tiny_base: Path, tmp_path: Path
) -> None:
    put_together(str(bare), [str(tiny_base)], "", tmp_path / "out")
    words = (tiny_base / "tokenizer/tokenizer.json").read_bytes()
    assert (tmp_path / "out/clip/tokenizer.json").read_bytes() == words
    with pytest.raises(BadBase, match="expected the words of its CLIPModel"):
        put_together(
            str(bare), [str(tmp_path / "clip"), str(tmp_path / "identity")], "", tmp_path / "two"
        )


def test_no_encoders_and_no_hub(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadBase, match=r"a hub that gives openai/.*pass --encoders FOLDER"):
        put_together(str(bare), [], "", tmp_path / "out")
    with pytest.raises(BadBase, match="expected a CLIPModel, a vision model"):
        put_together(str(bare), [str(bare / "unet")], "", tmp_path / "out2")
    with pytest.raises(BadBase, match=r"the hub did not give it .*download it and pass the folder"):
        put_together("somebody/base", [], "", tmp_path / "out3")


def test_one_checkpoint_becomes_the_base_that_it_was(tiny_base: Path, tmp_path: Path) -> None:
    """With the names that kohya and A1111 use; the words come from a base like it."""
    file = original_layout.write(tiny_base, tmp_path / "model.safetensors")
    out = tmp_path / "out"
    origin = put_together(str(file), [str(tiny_base)], str(tiny_base), out)
    assert origin.base == "model.safetensors"
    ours, theirs = load_base(str(out)), load_base(str(tiny_base))
    for part, network in theirs.networks.named().items():
        made = ours.networks.named()[part].state_dict()
        assert made.keys() == network.state_dict().keys()
        assert all(torch.equal(made[name], one) for name, one in network.state_dict().items())
    assert torch.equal(ours.read(["a dog"]).ids, theirs.read(["a dog"]).ids)
    assert not {name for name in names(out) if name.endswith((".bin", ".py", ".ckpt"))}


@pytest.mark.parametrize("prefix", ["model.diffusion_model", "first_stage_model", "cond_stage"])
def test_a_checkpoint_with_a_weight_too_few_is_refused(
    tiny_base: Path, tmp_path: Path, prefix: str
) -> None:
    file = original_layout.write(tiny_base, tmp_path / "model.safetensors")
    tensors = load_file(file)
    del tensors[sorted(name for name in tensors if name.startswith(prefix))[5]]
    save_file(tensors, file)
    with pytest.raises(BadBase, match=r"model.safetensors: .*(missing|expected \d+ tensors|read)"):
        put_together(str(file), [str(tiny_base)], str(tiny_base), tmp_path / "out")


def test_what_is_no_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    like = str(tiny_base)
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(BadBase, match=r"found lora_unet_x\.\*; a LoRA or a single part is no base"):
        put_together(str(tmp_path / "lora.safetensors"), [like], like, tmp_path / "out")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(BadBase, match="is cut off"):
        put_together(str(tmp_path / "cut.safetensors"), [like], like, tmp_path / "out")
    with pytest.raises(BadBase, match=r"gone\.safetensors"):
        put_together(str(tmp_path / "gone.safetensors"), [like], like, tmp_path / "out")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (LocalEntryNotFoundError("offline"), "expected a hub that gives configs .* pass --like"),
        (KeyError("a name of no checkpoint"), "the checkpoint could not be read: 'a name of no"),
    ],
)
def test_only_a_hub_that_is_away_is_told_as_that(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Exception, told: str
) -> None:
    file = original_layout.write(tiny_base, tmp_path / "model.safetensors")

    def failing(*_: object, **__: object) -> object:
        raise found

    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", failing)
    with pytest.raises(BadBase, match=told):
        put_together(str(file), [str(tiny_base)], "", tmp_path / "out")


def test_a_base_that_draws_no_numbers_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    file = copy / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"].fill_(float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BadBase, match="NaN or infinity"):
        try_out(copy)


def test_other_sizes_are_read_from_the_configs(tiny_base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    path = copy / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    assert try_out(copy)["prediction"] == "v_prediction"
