"""Bases: what is loaded, what is refused, and that our sampler is the base's own pipeline."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from l2dm.bases import folder as base_folder
from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base, resolution, vocabulary
from l2dm.bases.sampling import Shot, draw, draw_latents
from l2dm.errors import BadBase, BadPrompt, DoesNotFit
from l2dm.spec import SamplingSpec


@pytest.fixture
def copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_everything_is_read_from_the_configs(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    assert model.latent_shape == (4, 8, 8)
    assert model.resolution == 16 == resolution(str(tiny_base))
    assert model.networks.scaling == 0.5
    assert (model.steps, model.guidance) == (3, 2.0)
    assert model.noise.prediction == "epsilon"
    assert len(model.text_layers()) == 8  # one block down, one in the middle, two up
    assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())


def test_v_prediction_is_read_from_the_scheduler(copy: Path) -> None:
    change(copy / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert load_base(str(copy)).noise.prediction == "v_prediction"
    change(copy / "scheduler/scheduler_config.json", prediction_type="sample")
    with pytest.raises(BadBase, match="predicts 'sample', expected 'epsilon' or 'v_prediction'"):
        load_base(str(copy))


def test_we_draw_what_the_diffusers_pipeline_draws(tiny_base: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a photo of a dog"] * 2,
        num_inference_steps=3,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
        output_type="np",
    ).images
    expected = (theirs * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)
    ours = draw(
        load_base(str(tiny_base)), [Shot("a photo of a dog", s) for s in (5, 6)], SamplingSpec()
    )
    assert np.array_equal(ours.numpy(), expected)


def test_drawing_again_gives_the_same_bytes_and_other_seeds_others(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    shots = [Shot("a dog", 1), Shot("a cat", 2), Shot("a cup", 3)]
    spec = SamplingSpec(batch=2)
    assert torch.equal(draw(model, shots, spec), draw(model, shots, spec))
    assert not torch.equal(draw(model, shots, spec), draw(model, [Shot("a dog", 9)] * 3, spec))
    assert draw_latents(model, [], spec).shape == (0, 4, 8, 8)


def test_equal_prompts_are_read_once_and_in_order(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    text = model.read(["a dog", "a cat", "a dog"])
    assert torch.equal(text.states[0], text.states[2])
    assert not torch.equal(text.states[0], text.states[1])


def test_placeholders_leave_other_prompts_alone(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    before = model.read(["a photo of a dog"]).states
    row = model.add_placeholder("rex", torch.ones(24))
    assert torch.equal(model.read(["a photo of a dog"]).states, before)
    reading = model.read(["a photo of a <rex> dog"])
    assert not torch.equal(reading.states, before)
    assert int((reading.ids == model.placeholders.ids["rex"]).sum()) == 1
    with torch.no_grad():
        row.zero_()
    assert not torch.equal(model.read(["a photo of a <rex> dog"]).states, reading.states)


def test_placeholders_that_cannot_be(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    model.add_placeholder("rex", torch.ones(24))
    with pytest.raises(DoesNotFit, match="<rex> is a word of this base's tokenizer already"):
        model.add_placeholder("rex", torch.ones(24))
    with pytest.raises(DoesNotFit, match=r"has shape \(7,\), this text encoder reads \(24,\)"):
        model.add_placeholder("tom", torch.ones(7))
    with pytest.raises(BadPrompt, match="names <zoe>, which this line has not learned"):
        model.read(["a <zoe> dog"])
    with pytest.raises(BadPrompt, match="cuts off <rex>; shorten it"):
        model.read(["a dog " * 20 + "<rex>"])


def test_any_prompt_tokenizes(tiny_base: Path) -> None:
    model = load_base(str(tiny_base))
    assert model.read(["ein Dackel, 犬 🐕"]).states.isfinite().all()
    assert "dog</w>" in vocabulary(str(tiny_base))


def test_half_precision_variant_is_found(copy: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        for path in (copy / part).glob("*.safetensors"):
            path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert load_base(str(copy)).resolution == 16


def test_a_base_that_is_missing() -> None:
    with pytest.raises(
        BadBase, match=r"'pocket', a folder in diffusers layout, 'org/name' .*, s3://bucket/prefix"
    ):
        load_base("./no-such-folder")


def test_a_folder_of_that_name_does_not_hide_the_shipped_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    assert base_folder.source_of("pocket") == "shipped"
    assert base_folder.fingerprint(base_folder.locate("pocket"))
    assert base_folder.source_of("./pocket") == base_folder.source_of(str(tmp_path)) == "folder"


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/folder", "s3://bucket/prefix", "tiny"])
def test_names_that_no_base_has_here(name: str) -> None:
    assert base_folder.source_of(name) is None
    assert base_folder.source_of("org/name") == "hub"


def test_a_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(BadBase, match=r"expected model_index\.json of a Stable Diffusion 1/2"):
        load_base(str(tmp_path))


def test_another_architecture_is_named(copy: Path) -> None:
    change(
        copy / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"], text_encoder=None
    )
    with pytest.raises(BadBase, match="unet is FluxTransformer2DModel, expected UNet2D") as error:
        load_base(str(copy))
    assert any("text_encoder is missing" in problem for problem in error.value.problems)


def test_a_folder_of_sdxl_is_not_taken_for_one_of_ours(copy: Path) -> None:
    change(copy / "model_index.json", text_encoder_2=["transformers", "CLIPTextModel"])
    with pytest.raises(BadBase, match="text_encoder_2 is CLIPTextModel, expected none"):
        load_base(str(copy))


def test_a_base_is_checked_before_torch_is_loaded(tiny_base: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from l2dm.bases import folder;"
        "folder.check(Path(sys.argv[1])); folder.fingerprint(Path(sys.argv[1]));"
        "folder.resolution(Path(sys.argv[1]));"
        "print({'torch', 'diffusers', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tiny_base], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("weights", [True, False])
def test_classes_of_a_base_are_imported_before_anything_is_timed(
    tiny_base: Path, weights: bool
) -> None:
    program = (
        "import sys; from l2dm.bases import folder;"
        f"folder.import_classes(sys.argv[1], weights={weights});"
        "loaded = {'diffusers', 'transformers'} & sys.modules.keys();"
        "made = [name for name in ('transformers.models.clip.modeling_clip',"
        "'diffusers.models.unets.unet_2d_condition') if name in sys.modules];"
        "print(sorted(loaded), len(made))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tiny_base], capture_output=True, text=True, check=True
    )
    expected = "['diffusers', 'transformers'] 2" if weights else "['transformers'] 0"
    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize("part", ["vae", "tokenizer"])
def test_no_module_that_an_index_names_is_imported(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    (tmp_path / "of_the_base.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = json.loads((copy / "model_index.json").read_text())[part][1]
    change(copy / "model_index.json", **{part: ["of_the_base", kind]})
    with pytest.raises(BadBase, match=f"{part} is of the module 'of_the_base', expected diffusers"):
        base_folder.import_classes(str(copy))
    assert "of_the_base" not in sys.modules


def test_pickled_weights_are_refused_by_name(copy: Path) -> None:
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadBase, match=r"holds only pickled weights .*convert them to safetensors"):
        load_base(str(copy))


def test_torn_weights(copy: Path) -> None:
    weights = next((copy / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadBase, match="its weights could not be read"):
        load_base(str(copy))


def test_fingerprint_follows_weights_and_not_the_place(tiny_base: Path, copy: Path) -> None:
    assert base_folder.fingerprint(tiny_base) == base_folder.fingerprint(copy)
    weights = next((copy / "vae").glob("*.safetensors"))
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(bytes(flipped))
    assert base_folder.fingerprint(tiny_base) != base_folder.fingerprint(copy)


def test_encoders_give_unit_features(tiny_base: Path) -> None:
    encoders = load_encoders(str(tiny_base))
    pictures = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
    for features in (
        encoders.image(pictures), encoders.identity(pictures), encoders.text(["a dog"]),
    ):  # fmt: skip
        assert torch.allclose(features.norm(dim=-1), torch.ones(len(features)), atol=1e-5)
    assert encoders.distractors(7).shape == (7, 16)


def test_distractors_come_from_pictures_where_the_base_ships_none(copy: Path) -> None:
    (copy / "identity/distractors.safetensors").unlink()
    encoders = load_encoders(str(copy))
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(encoders.distractors(2, pictures), encoders.identity(pictures[:2]))
    assert encoders.distractors(2).shape == (0, 16)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("clip/model.safetensors", "its clip/"),
        ("identity/model.safetensors", "its identity/"),
        ("identity/distractors.safetensors", "its identity/"),
        ("identity/preprocessor_config.json", "its identity/"),
    ],
)
def test_encoders_that_cannot_be_read(copy: Path, file: str, what: str) -> None:
    (copy / file).write_bytes((copy / file).read_bytes()[:50])
    with pytest.raises(BadBase, match=f"{what} could not be read: .*; fetch or copy it again"):
        load_encoders(str(copy))


def test_encoders_whose_weights_were_left_behind(copy: Path) -> None:
    """As a library's OSError it was told as a full disk."""
    (copy / "clip/model.safetensors").unlink()
    with pytest.raises(BadBase, match="its clip/ could not be read"):
        load_encoders(str(copy))


@pytest.mark.parametrize("read", [load_base, vocabulary])
def test_a_tokenizer_that_cannot_be_read(copy: Path, read: Callable[[str], object]) -> None:
    (copy / "tokenizer/tokenizer.json").write_text("{")
    with pytest.raises(BadBase, match="its tokenizer could not be read"):
        read(str(copy))


def test_a_scheduler_that_was_left_behind(copy: Path) -> None:
    (copy / "scheduler/scheduler_config.json").unlink()
    with pytest.raises(BadBase, match="its scheduler could not be read"):
        load_base(str(copy))


def test_missing_encoders(copy: Path) -> None:
    shutil.rmtree(copy / "identity")
    with pytest.raises(BadBase, match="expected identity/ with a vision model such as DINO"):
        load_encoders(str(copy))
