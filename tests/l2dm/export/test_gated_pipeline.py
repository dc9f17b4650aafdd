"""The pipeline file of a gated export: alone, the library's gates, refusing the impossible."""

import ast
import itertools
import re
import sys
from pathlib import Path

import diffusers
import PIL.Image
import pytest
import torch
from safetensors.torch import save_file

from l2dm.adapters import prompt_rows
from l2dm.export import forms
from l2dm.export import write as export
from tests.worlds.handmade import make_release


@pytest.fixture(scope="module")
def token_export(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("token")
    export.export(
        make_release(root / "release", str(tiny_base), "token"), str(tiny_base), root / "out"
    )
    return root / "out"


def test_the_pipeline_file_stands_alone(token_export: Path) -> None:
    from l2dm.export import gated_pipeline

    source = (token_export / "pipeline.py").read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module))
    tops = {name.partition(".")[0] for name in imported}
    assert tops - set(sys.stdlib_module_names) == {"torch", "diffusers", "safetensors"}
    assert gated_pipeline.FORMAT == forms.GATED_FORMAT


def test_the_pipeline_opens_the_rows_that_the_library_opens() -> None:
    from l2dm.export.gated_pipeline import rows_of

    placeholders, noun = {7, 8}, [3, 4]
    ids = torch.tensor(list(itertools.product([1, 3, 4, 7, 8], repeat=5)))
    for own in placeholders:
        for gate, expected in {
            "token": prompt_rows.token_gate(ids, own),
            "span": prompt_rows.span_gate(ids, own, noun),
            "prompt": prompt_rows.prompt_gate(ids, own, placeholders),
        }.items():
            assert torch.equal(rows_of(ids, gate, own, noun, placeholders), expected), gate


@pytest.fixture
def pipe(tiny_base: Path) -> object:
    from l2dm.export.gated_pipeline import GatedStableDiffusionPipeline

    return GatedStableDiffusionPipeline.from_pretrained(tiny_base)


def test_the_pipeline_refuses_a_folder_without_weights(pipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected gated\.safetensors in .* pass the export"):
        pipe.load_gated(tmp_path)


def test_the_pipeline_refuses_another_format(pipe, tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "gated.safetensors", {"format": "l2dm-gated-9"})
    with pytest.raises(ValueError, match="found format 'l2dm-gated-9' and gate None"):
        pipe.load_gated(tmp_path)


def test_the_pipeline_refuses_weights_of_another_base(pipe, tmp_path: Path) -> None:
    header = {"format": "l2dm-gated-1", "gate": "token", "concepts": '[["toy", "dog"]]'}
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {"toy/nowhere.down": torch.ones(3, 1), f"toy/{layer}.down": torch.ones(3, 1)}
    tensors[f"toy/{layer}.up"] = torch.ones(1, 16)
    save_file(tensors, tmp_path / "gated.safetensors", header)
    with pytest.raises(ValueError, match=r"maps \(24, 16\), <toy> is made for \(3, 16\).*2 in all"):
        pipe.load_gated(tmp_path)


def test_the_pipeline_refuses_ready_made_embeddings(pipe, token_export: Path) -> None:
    pipe.load_gated(token_export)
    with pytest.raises(ValueError, match=r"found prompt_embeds: gates are read from the words"):
        pipe(prompt_embeds=torch.zeros(1, 16, 24), num_inference_steps=1, guidance_scale=1.0)


def test_the_pipeline_refuses_a_batch_that_a_callback_changed(pipe, token_export: Path) -> None:
    pipe.load_gated(token_export)

    def halve(pipe, step, timestep, tensors):
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": tensors["prompt_embeds"][:1]}

    with pytest.raises(ValueError, match=r"expected text features of \(2, 16\).* found \(1, 16\)"):
        pipe("a <toy> dog", num_inference_steps=2, guidance_scale=2.0, callback_on_step_end=halve,
             callback_on_step_end_tensor_inputs=["prompt_embeds"])  # fmt: skip


def test_gates_are_closed_after_a_call_and_after_a_failed_one(pipe, token_export: Path) -> None:
    pipe.load_gated(token_export)
    noisy = torch.ones(1, 4, 8, 8)
    with torch.no_grad():
        features = pipe.encode_prompt("a dog", "cpu", 1, False)[0]
        before = pipe.unet(noisy, 10, encoder_hidden_states=features).sample
        pipe("a <toy> dog", num_inference_steps=1)
        with pytest.raises(ZeroDivisionError):
            pipe("a <toy> dog", num_inference_steps=1, callback_on_step_end=lambda *_: 1 / 0)
        assert torch.equal(pipe.unet(noisy, 10, encoder_hidden_states=features).sample, before)


def test_a_placeholder_in_the_negative_prompt_opens_its_own_row(pipe, token_export: Path) -> None:
    pipe.load_gated(token_export)
    gates, seen = pipe._own_gates(), {}

    def look(pipe, step, timestep, tensors):
        seen.update({name: rows.squeeze(-1).sum(1).tolist() for name, rows in gates.rows.items()})
        return tensors

    pipe(["a dog", "a <toy> dog"], negative_prompt=["a <toy2>", ""], num_inference_steps=1,
         callback_on_step_end=look)  # fmt: skip
    # Rows of the batch: negative 1, negative 2, prompt 1, prompt 2.
    assert seen == {"toy": [0, 0, 0, 1], "toy2": [1, 0, 0, 0]}


# --- other pipelines of diffusers that share this one's networks ---

CALL = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "np"}


def picture_of(pipe, prompt: str, **options: object):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    return pipe(prompt, generator=generator, **(CALL | options)).images


@pytest.fixture
def loaded(pipe, token_export: Path):
    pipe.load_gated(token_export)
    return pipe


@pytest.mark.parametrize("prompt", ["a <toy> dog", "a dog", "a <toy> dog and a <toy2> red cup"])
def test_the_plain_pipeline_made_of_this_one_draws_the_same(loaded, prompt: str) -> None:
    plain = diffusers.StableDiffusionPipeline.from_pipe(loaded)
    more = {"negative_prompt": "a <toy2>", "num_images_per_prompt": 2}
    wanted = picture_of(loaded, prompt, **more)
    assert (picture_of(plain, prompt, **more) == wanted).all()


def others(pipe, base: Path):
    """Pipelines of other kinds, with what each is called with."""
    torch.manual_seed(0)
    picture = PIL.Image.effect_noise((16, 16), 80).convert("RGB")
    from_pipe = {name: getattr(diffusers, name).from_pipe for name in OTHERS}
    control = diffusers.ControlNetModel.from_unet(
        diffusers.UNet2DConditionModel.from_pretrained(base, subfolder="unet"),
        conditioning_embedding_out_channels=(16, 32),
    )
    return {
        "StableDiffusionImg2ImgPipeline": (from_pipe["StableDiffusionImg2ImgPipeline"](pipe),
                                           {"image": picture, "strength": 1.0}),
        "StableDiffusionInpaintPipeline": (from_pipe["StableDiffusionInpaintPipeline"](pipe),
                                           {"image": picture, "mask_image": picture,
                                            "height": 16, "width": 16}),
        "StableDiffusionControlNetPipeline": (
            from_pipe["StableDiffusionControlNetPipeline"](pipe, controlnet=control),
            {"image": picture}),
    }  # fmt: skip


OTHERS = (
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
)


@pytest.mark.parametrize("name", OTHERS)
def test_other_pipelines_draw_the_concept_and_the_base_without_it(
    loaded, name: str, tiny_base: Path, token_export: Path
) -> None:
    made, options = others(loaded, tiny_base)[name]
    bare, _ = others(diffusers.StableDiffusionPipeline.from_pretrained(tiny_base), tiny_base)[name]
    assert (picture_of(made, "a dog", **options) == picture_of(bare, "a dog", **options)).all()
    with_concept = picture_of(made, "a <toy> dog", **options)
    bare.load_textual_inversion(str(token_export / "embeddings" / "toy.safetensors"))
    assert (picture_of(bare, "a <toy> dog", **options) != with_concept).any()
    assert not loaded._own_gates().rows


def test_features_of_elsewhere_are_refused_in_any_pipeline(loaded) -> None:
    plain = diffusers.StableDiffusionPipeline.from_pipe(loaded)
    positive, negative = plain.encode_prompt("a <toy> dog", "cpu", 1, True)
    own = picture_of(plain, None, prompt_embeds=positive, negative_prompt_embeds=negative)
    assert (own == picture_of(loaded, "a <toy> dog")).all()
    with pytest.raises(ValueError, match=r"text features that this pipeline's own text encoder"):
        picture_of(plain, None, prompt_embeds=positive * 1.1, negative_prompt_embeds=negative)
    nothing = torch.zeros_like(negative)
    assert picture_of(plain, None, prompt_embeds=positive, negative_prompt_embeds=nothing).any()


def test_fused_projections_are_refused(loaded) -> None:
    loaded.fuse_qkv_projections(vae=False)
    with pytest.raises(ValueError, match="call unfuse_qkv_projections"):
        picture_of(loaded, "a <toy> dog")
    loaded.unfuse_qkv_projections(vae=False)
    assert picture_of(loaded, "a <toy> dog").any()


def test_neither_this_nor_another_pipeline_is_saved_without_its_concepts(
    loaded, tmp_path: Path
) -> None:
    for made in (loaded, diffusers.StableDiffusionImg2ImgPipeline.from_pipe(loaded)):
        with pytest.raises(ValueError, match="would draw without the concepts"):
            made.save_pretrained(tmp_path / "saved")


def test_a_word_of_no_loaded_concept_is_refused(pipe, token_export: Path) -> None:
    with pytest.raises(ValueError, match=r"which are none, found <toy>; call load_gated"):
        picture_of(pipe, "a <toy> dog")
    pipe.load_gated(token_export)
    with pytest.raises(ValueError, match=r"which are <toy>, <toy2>, found <rex>"):
        picture_of(pipe, "a dog", negative_prompt="<rex>")
    for nearly in ("<Toy>", "< toy >", "<<toy>>", "<toy>>", "<toy", "toy>", "<Toy"):
        with pytest.raises(ValueError, match=rf"found {re.escape(nearly)};"):
            picture_of(pipe, f"a {nearly} dog")
    assert picture_of(pipe, "a <toy> dog <3 -> x, 1 < y and z > 2").any()
