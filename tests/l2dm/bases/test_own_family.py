"""What every base family answers, asked of Stable Diffusion and of two that only this file knows.

One is shaped as SDXL (two text encoders, a pooled vector), the other as PixArt (a transformer that
reads a masked text, here behind two rows of its own). Neither needs an edit of another file.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from l2dm import doors
from l2dm import spec as specs
from l2dm.adapters.contract import AttachedAdapter
from l2dm.bases import attach, family
from l2dm.bases import folder as base_folder
from l2dm.bases.families.stable_diffusion import FAMILY as STABLE_DIFFUSION
from l2dm.bases.family import Configs, Family, Part, Reader, TextLayer
from l2dm.bases.model import Model, load_base, resolution, vocabulary
from l2dm.bases.sampling import Shot, draw
from l2dm.bases.text import Text, concatenate
from l2dm.errors import BadBase, BadPrompt, DoesNotFit
from l2dm.export.write import export
from l2dm.files import door_files, manifest
from l2dm.methods.contract import Learned
from l2dm.methods.lesson import Lesson, Pool
from l2dm.spec import SamplingSpec
from l2dm.training.fit import fit
from l2dm.training.learn import method_of
from tests.worlds.handmade import make_release

REX = doors.Concept("rex", "dog")
NAMED, PLAIN = "a photo of a <rex> dog", "a photo of a dog"
FORWARD = SamplingSpec(steps=2, guidance=2.0)


@dataclass(frozen=True)
class Networks:
    """What the two families below have in common."""

    denoiser: Any
    vae: Any
    encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    names: tuple[str, ...]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        side = self.denoiser.config.sample_size
        return self.denoiser.config.in_channels, side, side

    @property
    def scaling(self) -> float:
        return float(self.vae.config.scaling_factor)

    def named(self) -> Mapping[str, Any]:
        return dict(zip(self.names, (self.denoiser, self.vae, *self.encoders), strict=True))

    def readers(self) -> Sequence[Reader]:
        return [Reader(*pair) for pair in zip(self.tokenizers, self.encoders, strict=True)]

    def encode(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self.vae.encode(pictures).latent_dist.mean * self.scaling
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.vae.decode(latents / self.scaling, return_dict=False)[0]
        return pictures

    def tokens(self, tokenizer: Any, prompts: Sequence[str]) -> Any:
        return tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt",
            max_length=tokenizer.model_max_length,
        ).to(self.denoiser.device)  # fmt: skip


@dataclass(frozen=True)
class TwoEncoders(Networks):
    """As SDXL: the last but one hidden states of both, side by side; no prompt reads as zeros."""

    def text_layers(self) -> Mapping[str, TextLayer]:
        return {
            f"{name}.{which}": TextLayer(getattr(module, which))
            for name, module in self.denoiser.named_modules()
            if getattr(module, "is_cross_attention", False)
            for which in ("to_k", "to_v")
        }

    def read(self, prompts: Sequence[str]) -> Text:
        ids = [self.tokens(one, prompts).input_ids for one in self.tokenizers]
        first, second = (
            encoder(one, output_hidden_states=True)
            for encoder, one in zip(self.encoders, ids, strict=True)
        )
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return Text(ids[0], states, pooled=second.text_embeds)

    def read_nothing(self) -> Text:
        text = self.read([""])
        assert text.pooled is not None
        return Text(text.ids, text.states * 0, pooled=text.pooled * 0)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        side = self.latent_shape[1] * 2
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(noisy), device=noisy.device)
        output: Tensor = self.denoiser(
            noisy, timesteps, encoder_hidden_states=text.states, return_dict=False,
            added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes},
        )[0]  # fmt: skip
        return output


@dataclass(frozen=True)
class Transformer(Networks):
    """As PixArt: padding is masked, half of the output is noise. Text begins behind OWN_ROWS."""

    OWN_ROWS = 2

    def text_layers(self) -> Mapping[str, TextLayer]:
        return {
            f"transformer_blocks.{index}.attn2.{which}": TextLayer(
                getattr(block.attn2, which), first_row=self.OWN_ROWS
            )
            for index, block in enumerate(self.denoiser.transformer_blocks)
            for which in ("to_k", "to_v")
        }

    def read(self, prompts: Sequence[str]) -> Text:
        tokens = self.tokens(self.tokenizers[0], prompts)
        states = self.encoders[0](tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return Text(tokens.input_ids, states, mask=tokens.attention_mask)

    def read_nothing(self) -> Text:
        return self.read([""])

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        assert text.mask is not None
        own = torch.ones(len(noisy), self.OWN_ROWS, text.states.shape[-1], device=noisy.device)
        mask = torch.cat([torch.ones_like(text.mask[:, : self.OWN_ROWS]), text.mask], dim=1)
        output: Tensor = self.denoiser(
            noisy, encoder_hidden_states=torch.cat([own, text.states], dim=1),
            timestep=timesteps.expand(len(noisy)), encoder_attention_mask=mask, return_dict=False,
        )[0]  # fmt: skip
        return output.chunk(2, dim=1)[0]


def words(*names: str) -> Callable[[Path], tuple[Any, ...]]:
    def read(folder: Path) -> tuple[Any, ...]:
        from transformers import CLIPTokenizer

        return tuple(CLIPTokenizer.from_pretrained(folder, subfolder=name) for name in names)

    return read


def loading(kind: type[Networks], names: tuple[str, ...]) -> Callable[..., Networks]:
    def load(folder: Path, tokenizers: tuple[Any, ...], variant: str | None) -> Networks:
        import diffusers
        import transformers

        index = json.loads((folder / "model_index.json").read_text())
        libraries = {"diffusers": diffusers, "transformers": transformers}
        denoiser, vae, *encoders = (
            getattr(libraries[index[name][0]], index[name][1]).from_pretrained(
                folder, subfolder=name, use_safetensors=True, variant=variant
            )
            for name in names
        )
        return kind(denoiser, vae, tuple(encoders), tokenizers, names)

    return load


def side_of(denoiser: str) -> Callable[[Configs], int]:
    return lambda configs: int(configs[denoiser]["sample_size"]) * 2


TOKENIZER = frozenset({"CLIPTokenizer"})
TWO_ENCODERS = Family(
    name="two encoders",
    pipeline="StableDiffusionXLPipeline",
    parts=(
        Part("unet", frozenset({"UNet2DConditionModel"})),
        Part("vae", frozenset({"AutoencoderKL"})),
        Part("text_encoder", frozenset({"CLIPTextModel"})),
        Part("text_encoder_2", frozenset({"CLIPTextModelWithProjection"})),
        Part("tokenizer", TOKENIZER, weights=False),
        Part("tokenizer_2", TOKENIZER, weights=False),
    ),
    without=frozenset(),
    denoiser="unet",
    shifted=("unet",),
    predictions=("epsilon",),
    resolution=side_of("unet"),
    tokenizers=words("tokenizer", "tokenizer_2"),
    load=loading(TwoEncoders, ("unet", "vae", "text_encoder", "text_encoder_2")),
)
TRANSFORMER = Family(
    name="transformer",
    pipeline="PixArtAlphaPipeline",
    parts=(
        Part("transformer", frozenset({"PixArtTransformer2DModel"})),
        Part("vae", frozenset({"AutoencoderKL"})),
        Part("text_encoder", frozenset({"T5EncoderModel"})),
        Part("tokenizer", TOKENIZER, weights=False),
    ),
    without=frozenset(),
    denoiser="transformer",
    shifted=("transformer",),
    predictions=("epsilon",),
    resolution=side_of("transformer"),
    tokenizers=words("tokenizer"),
    load=loading(Transformer, ("transformer", "vae", "text_encoder")),
)


def write_two_encoders(folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").config
    config.hidden_size, config.projection_dim = 16, 12
    CLIPTextModelWithProjection(config).save_pretrained(folder / "text_encoder_2")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    shutil.rmtree(folder / "unet")
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24 + 16, attention_head_dim=2, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 12,
    ).save_pretrained(folder / "unet")  # fmt: skip
    change_index(
        folder, _class_name="StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True,
        text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
        tokenizer_2=["transformers", "CLIPTokenizer"],
    )  # fmt: skip


def write_transformer(folder: Path) -> None:
    from diffusers import PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    vocabulary_size = json.loads((folder / "text_encoder/config.json").read_text())["vocab_size"]
    for part in ("unet", "text_encoder"):
        shutil.rmtree(folder / part)
    PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8,
        cross_attention_dim=16, caption_channels=24,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    T5EncoderModel(
        T5Config(vocab_size=vocabulary_size, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ).save_pretrained(folder / "text_encoder")
    change_index(
        folder, _class_name="PixArtAlphaPipeline", unet=None,
        transformer=["diffusers", "PixArtTransformer2DModel"],
        text_encoder=["transformers", "T5EncoderModel"],
    )  # fmt: skip


def change_index(folder: Path, **values: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


OWN = {
    "two encoders": (TWO_ENCODERS, write_two_encoders),
    "transformer": (TRANSFORMER, write_transformer),
}
FAMILIES = {"stable diffusion": STABLE_DIFFUSION} | {name: one for name, (one, _) in OWN.items()}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    for one, _ in OWN.values():
        family.register(one)
    yield
    for one, _ in OWN.values():
        family.unregister(one)


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {"stable diffusion": tiny_base}
    state = torch.get_rng_state()
    for name, (_, write) in OWN.items():
        found[name] = Path(shutil.copytree(tiny_base, tmp_path_factory.mktemp(name) / "base"))
        torch.manual_seed(0)
        write(found[name])
    torch.set_rng_state(state)
    return found


@pytest.fixture(params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(folders: dict[str, Path], name: str) -> Path:
    return folders[name]


@pytest.fixture
def model(folder: Path) -> Model:
    return load_base(str(folder))


def noisy(model: Model, count: int) -> Tensor:
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(7))


def output(model: Model, *prompts: str) -> Tensor:
    with torch.no_grad():
        return model.predict(noisy(model, len(prompts)), torch.tensor(300), model.read(prompts))


def perturb(adapter: AttachedAdapter) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.trainable().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def attach_kind(model: Model, kind: str) -> AttachedAdapter:
    """Fresh and ready to learn REX."""
    model.add_placeholder(REX.name, model.noun_row(REX.class_noun))
    settings: dict[str, str | int | float] = {"rank": 2, "gate": "span"}
    adapter = attach.attach_new(model, kind, settings, torch.Generator().manual_seed(3), [REX])
    if kind == "gated":
        adapter.learn(REX.name)  # type: ignore[attr-defined]
    return adapter


def test_a_folder_is_recognised(folder: Path, name: str) -> None:
    base_folder.check(folder)
    assert base_folder.family_of(folder) is FAMILIES[name]
    files = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    assert base_folder.unloadable(files) == []


def test_missing_weights_are_named(folder: Path, name: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "base"))
    for path in base_folder.weights_files(copy, FAMILIES[name].denoiser):
        path.unlink()
    with pytest.raises(BadBase, match=f"{FAMILIES[name].denoiser}/ holds no safetensors file"):
        base_folder.check(copy)


def test_each_weight_and_word_counts_for_the_fingerprint(
    folder: Path, name: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "base"))
    seen = {base_folder.fingerprint(folder), base_folder.fingerprint(copy)}
    assert len(seen) == 1
    for part in FAMILIES[name].parts:
        (copy / part.name / "more.json").write_text("{}")
        seen.add(base_folder.fingerprint(copy))
    assert len(seen) == 1 + len(FAMILIES[name].parts)


def test_it_loads_frozen(model: Model, folder: Path, name: str) -> None:
    assert model.family is FAMILIES[name]
    assert list(model.networks.named()) == list(model.family.weights)
    for network in model.networks.named().values():
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert model.resolution == 16 == resolution(str(folder))
    assert "dog</w>" in vocabulary(str(folder))
    assert model.noise.prediction == "epsilon"


def test_prompts_are_read_once_and_in_order(model: Model) -> None:
    text = model.read(["a dog", "a cat", "a dog"])
    assert len(text.ids) == len(text.states) == 3
    assert torch.equal(text.states[0], text.states[2])
    assert not torch.equal(text.states[0], text.states[1])
    joined = concatenate([text[[1]], text[[0]]])
    for part in ("ids", "states", "pooled", "mask"):
        whole = getattr(text, part)
        if whole is not None:
            assert torch.equal(getattr(joined, part), whole[[1, 0]])
    assert len(model.read_nothing(3).states) == 3


def test_placeholders_leave_other_prompts_alone(model: Model) -> None:
    before = model.read([PLAIN])
    row = model.add_placeholder("rex", model.noun_row("dog"))
    assert torch.equal(model.read([PLAIN]).states, before.states)
    reading = model.read([NAMED])
    assert int((reading.ids == model.placeholders.ids["rex"]).sum()) == 1
    for half in row.data.chunk(2):  # of two text encoders, each reads its own part of the row
        half.zero_()
        again = model.read([NAMED])
        assert not torch.equal(again.states, reading.states)
        reading = again
    with pytest.raises(BadPrompt, match="names <tom>, which this line has not learned"):
        model.read(["a <tom> cat"])
    with pytest.raises(BadPrompt, match=r"longer than the 16 tokens .* cuts off <rex>"):
        model.read(["a dog " * 20 + "<rex>"])


def test_it_predicts_for_each_picture(model: Model) -> None:
    both = output(model, PLAIN, "a cat")
    assert both.shape == (2, *model.latent_shape)
    assert both.isfinite().all()
    assert torch.allclose(both[:1], output(model, PLAIN), atol=1e-5)
    assert not torch.allclose(both[:1], output(model, "a cat"), atol=1e-5)


def test_pictures_become_latents_and_pictures_again(model: Model) -> None:
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    latents = model.encode(pictures)
    assert (latents.shape, latents.dtype) == ((2, *model.latent_shape), torch.float32)
    decoded = model.decode(latents)
    assert (decoded.shape, decoded.dtype) == (pictures.shape, torch.uint8)


@pytest.mark.parametrize("kind", ["lowrank", "spectral", "gated"])
def test_every_kind_of_adapter_sits_on_it(model: Model, folder: Path, kind: str) -> None:
    start = load_base(str(folder))
    start.add_placeholder(REX.name, start.noun_row(REX.class_noun))
    before = output(start, NAMED, PLAIN)
    adapter = attach_kind(model, kind)
    assert torch.equal(output(model, NAMED, PLAIN), before)
    perturb(adapter)
    changed = output(model, NAMED, PLAIN)
    assert not torch.allclose(changed[0], before[0], atol=1e-4)
    with model.plain():
        assert torch.equal(output(model, NAMED, PLAIN), before)
    adapter.load(adapter.state())  # gated weights are rounded to half precision, once
    attach_kind(other := load_base(str(folder)), kind).load(adapter.state())
    assert torch.equal(output(other, NAMED, PLAIN), output(model, NAMED, PLAIN))


def test_plain_prompts_are_the_base_bit_for_bit_with_gates_on(model: Model, folder: Path) -> None:
    perturb(attach_kind(model, "gated"))
    shots = [Shot(PLAIN, 1), Shot("a cat in a cup", 2)]
    assert torch.equal(draw(model, shots, FORWARD), draw(load_base(str(folder)), shots, FORWARD))
    beside = output(model, PLAIN, NAMED)  # of a batch, the row that names nothing
    assert torch.equal(beside[0], output(model, PLAIN, "a cat")[0])


@pytest.mark.parametrize("method", ["sequential", "gated"])
def test_it_learns_a_concept_and_draws_it(
    model: Model, folder: Path, method: str, tmp_path: Path
) -> None:
    spec = specs.override(
        specs.Spec(), [f"train.method={method}", "train.steps=3", "train.batch=2", "train.rank=2"]
    )
    learned, curve = fit(method_of(spec), model, lesson(model, tmp_path), spec.train)
    assert len(curve["new"]) == 3
    assert not torch.equal(learned.rows["rex"].flatten(), load_base(str(folder)).noun_row("dog"))
    knows = load_base(str(folder))
    attach.attach_door(knows, door(tmp_path / "learned", learned, knows, method))
    pictures = draw(knows, [Shot(NAMED, 5)], FORWARD)
    assert pictures.shape == (1, 3, 16, 16)
    assert torch.equal(pictures, draw(knows, [Shot(NAMED, 5)], FORWARD))
    bare = load_base(str(folder))
    with knows.plain():
        assert torch.equal(
            draw(knows, [Shot(PLAIN, 5)], FORWARD), draw(bare, [Shot(PLAIN, 5)], FORWARD)
        )
    if method == "gated":
        assert torch.equal(output(knows, PLAIN), output(bare, PLAIN))


def lesson(model: Model, root: Path) -> Lesson:
    record = doors.Adapter("none", "none", (), model.fingerprint, "")
    parent = manifest.write(root / "empty", record, lambda _: None)
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    new = Pool(model.encode(pictures), ((NAMED,),) * 3)
    nothing = Pool(new.latents[:0], ())
    return Lesson(REX, parent, new, nothing, nothing, seed=11)


def door(folder: Path, learned: Learned, model: Model, method: str) -> manifest.Door[doors.Adapter]:
    record = doors.Adapter(
        method, learned.kind, (REX,), model.fingerprint, "", dict(learned.settings)
    )
    return manifest.write(
        folder, record, lambda draft: door_files.write_adapter(draft, learned.weights, learned.rows)
    )


def test_two_encoders_draw_what_their_diffusers_pipeline_draws(folders: dict[str, Path]) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folders["two encoders"])
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        [PLAIN] * 2, num_inference_steps=3, guidance_scale=2.0, output_type="np",
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    ).images  # fmt: skip
    expected = (theirs * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)
    model = load_base(str(folders["two encoders"]))
    ours = draw(model, [Shot(PLAIN, seed) for seed in (5, 6)], SamplingSpec(steps=3, guidance=2.0))
    assert np.array_equal(ours.numpy(), expected)


@pytest.mark.parametrize(
    ("name", "kind", "refusal"),
    [
        ("two encoders", "lowrank", "expected a base with one text encoder, found 2"),
        ("transformer", "lowrank", "found one of family transformer, which has no name in them"),
        ("transformer", "token", "draws with PixArtAlphaPipeline; the export knows no pipeline"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    folder: Path, tmp_path: Path, kind: str, refusal: str
) -> None:
    release = make_release(tmp_path / "release", str(folder), kind)
    with pytest.raises(DoesNotFit, match=refusal):
        export(release, str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_family_that_is_not_known(folders: dict[str, Path]) -> None:
    family.unregister(TWO_ENCODERS)
    try:
        with pytest.raises(
            BadBase, match="text_encoder_2 is CLIPTextModelWithProjection, expected none"
        ):
            base_folder.check(folders["two encoders"])
    finally:
        family.register(TWO_ENCODERS)


def test_a_family_is_registered_once() -> None:
    with pytest.raises(
        ValueError, match="expected a new family, found 'transformer' a second time"
    ):
        family.register(TRANSFORMER)
