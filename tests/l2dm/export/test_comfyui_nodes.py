"""The ComfyUI node file, run against stand-ins of ComfyUI's loader, patcher and text encoder."""

import ast
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2dm.adapters import prompt_rows
from l2dm.bases.model import Model, load_base
from l2dm.export import forms
from l2dm.export import write as export
from l2dm.releases.load import load_release
from tests.worlds.handmade import make_release

GATES = ("token", "span", "prompt")


class Patcher:
    """ComfyUI's ModelPatcher as far as nodes use it: `model.diffusion_model` and object patches."""

    def __init__(self, unet: nn.Module, patches: dict[str, Any] | None = None) -> None:
        self.model = SimpleNamespace(
            diffusion_model=unet, model_config=SimpleNamespace(unet_config={"unet": unet})
        )
        self.object_patches = dict(patches or {})

    def clone(self) -> "Patcher":
        return Patcher(self.model.diffusion_model, self.object_patches)

    def get_model_object(self, name: str) -> Any:
        if name in self.object_patches:
            return self.object_patches[name]
        found: Any = self.model
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def add_object_patch(self, name: str, value: Any) -> None:
        self.object_patches[name] = value

    def predict(self, noisy: Tensor, context: Tensor) -> Tensor:
        """Patched, computed, and unpatched again."""
        kept = {}
        for name, value in self.object_patches.items():
            owner, _, attribute = name.rpartition(".")
            kept[name] = (self.get_model_object(owner), attribute)
            setattr(*kept[name], value)
        try:
            with torch.no_grad():
                unet = self.model.diffusion_model
                return unet(noisy, 500, encoder_hidden_states=context).sample
        finally:
            for owner, attribute in kept.values():
                delattr(owner, attribute)


class Clip:
    """A text encoder: tokens are (number or embedding, weight), in chunks, under a name."""

    def __init__(self, model: Model) -> None:
        self._model, self._tokenizer = model, model.networks.readers()[0].tokenizer

    def tokenize(self, text: str) -> dict[str, list[list[tuple[Any, float]]]]:
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        chunks = [ids[at : at + 14] for at in range(0, max(len(ids), 1), 14)]
        rows = [[begin, *chunk, end, *[end] * 16][:16] for chunk in chunks]
        return {"l": [[(token, 1.0) for token in row] for row in rows]}

    def encode_from_tokens(self, tokens: Any, return_pooled: bool) -> tuple[Tensor, Tensor]:
        (chunk,) = tokens["l"]
        ids = torch.tensor([[self._number(value) for value, _ in chunk]])
        with torch.no_grad():
            return self._model.networks.text_encoder(ids)[0], torch.zeros(1, 24)

    def _number(self, value: Any) -> int:
        if isinstance(value, int):
            return value
        rows = self._model.placeholders.state()
        (name,) = [one for one, row in rows.items() if torch.equal(row, value)]
        return self._model.placeholders.ids[name]


@pytest.fixture(autouse=True)
def comfy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map of names, of a UNet whose layers are called as in diffusers."""
    utils = ModuleType("comfy.utils")
    named = {"unet_to_diffusers": lambda config: {k: k for k in config["unet"].state_dict()}}
    utils.__dict__.update(named)
    package = ModuleType("comfy")
    package.__dict__["utils"] = utils
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)


class Loaded:
    """An export of one gate, its nodes as ComfyUI finds them, and what our library computes."""

    def __init__(self, gate: str, base: Path, root: Path) -> None:
        release = make_release(root / "release", str(base), gate)
        self.folder = root / "out"
        export.export(release, str(base), self.folder)
        self.ours, self.base = load_release(release, str(base)), load_base(str(base))
        self.nodes = nodes_of(self.folder / forms.NODES)
        self.clip = Clip(self.ours)

    def node(self, name: str) -> Any:
        kind = self.nodes[name]
        return getattr(kind(), kind.FUNCTION)

    def patched(self) -> tuple[Patcher, Any]:
        model, concepts = self.node("L2dmLoadGated")(Patcher(self.base.denoiser), str(self.folder))
        return model, concepts

    def features(self, concepts: Any, prompt: str) -> Tensor:
        (conditioning,) = self.node("L2dmGatedPrompt")(self.clip, concepts, prompt)
        ((features, extra),) = conditioning
        assert set(extra) == {"pooled_output"}
        return features


def nodes_of(path: Path) -> dict[str, Any]:
    """As ComfyUI loads a file of `custom_nodes/`."""
    spec = importlib.util.spec_from_file_location("custom_nodes_l2dm", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_DISPLAY_NAME_MAPPINGS.keys() == module.NODE_CLASS_MAPPINGS.keys()
    return dict(module.NODE_CLASS_MAPPINGS)


@pytest.fixture(scope="module", params=GATES)
def loaded(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Loaded:
    return Loaded(request.param, tiny_base, tmp_path_factory.mktemp(request.param))


def test_the_file_stands_alone_and_declares_nodes_as_comfyui_asks(loaded: Loaded) -> None:
    tree = ast.parse((loaded.folder / forms.NODES).read_text())
    tops = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert tops - set(sys.stdlib_module_names) == {"torch", "safetensors", "comfy"}
    for kind in loaded.nodes.values():
        required = kind.INPUT_TYPES()["required"]
        assert all(isinstance(one, tuple) and isinstance(one[0], str) for one in required.values())
        assert isinstance(kind.RETURN_TYPES, tuple)
        assert callable(getattr(kind(), kind.FUNCTION))
        assert isinstance(kind.CATEGORY, str)


PROMPTS = ("a photo of a dog", "a <toy> dog", "a <toy> dog and a <toy2> red cup", "a blue <toy2>")


def test_the_model_predicts_what_ours_predicts(loaded: Loaded) -> None:
    model, concepts = loaded.patched()
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for negative, prompt in itertools.product(("", "a <toy2>"), PROMPTS):
        context = torch.cat([loaded.features(concepts, text) for text in (negative, prompt)])
        with torch.no_grad():
            wanted = loaded.ours.predict(
                noisy, torch.tensor(500), loaded.ours.read([negative, prompt])
            )
        assert torch.allclose(model.predict(noisy, context), wanted, atol=1e-6), (negative, prompt)
    base = loaded.base.denoiser(noisy, 500, encoder_hidden_states=context).sample
    assert not torch.allclose(base, wanted, atol=1e-3)


def test_without_a_word_it_is_the_base_bit_for_bit(loaded: Loaded) -> None:
    model, concepts = loaded.patched()
    noisy, context = torch.ones(1, 4, 8, 8), loaded.features(concepts, "a photo of a dog")
    with torch.no_grad():
        bare = loaded.base.denoiser(noisy, 500, encoder_hidden_states=context).sample
    assert torch.equal(model.predict(noisy, context), bare)
    zeros = torch.zeros_like(context)  # ConditioningZeroOut
    assert model.predict(noisy, zeros).isfinite().all()


def test_a_prompt_that_is_repeated_beside_a_longer_one_keeps_its_gates(loaded: Loaded) -> None:
    _, concepts = loaded.patched()
    one = loaded.features(concepts, "a <toy> dog")
    alone, twice = concepts.owned(one), concepts.owned(one.repeat(1, 2, 1))
    assert torch.equal(twice["toy"], alone["toy"].repeat(1, 2, 1))
    half = concepts.owned(one.half())  # the model reads another precision
    assert torch.equal(half["toy"], alone["toy"])


def test_features_of_another_node_are_refused(loaded: Loaded) -> None:
    model, concepts = loaded.patched()
    context = loaded.features(concepts, "a <toy> dog")
    with pytest.raises(ValueError, match="expected text features of the node 'l2dm: prompt'"):
        model.predict(torch.ones(1, 4, 8, 8), context * 1.01)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a <rex> dog", "expected words of <toy>, <toy2>, found <rex>"),
        ("a <Toy> dog", "expected words of <toy>, <toy2>, found '<Toy>'"),
        ("a < toy > dog", "found '< toy >'"),
        ("a <<toy>> dog", "found '<<toy>>'"),
        ("a <toy dog", "found '<toy'"),
        ("a toy> dog", "found 'toy>'"),
        ("a (<toy> dog)", "expected brackets beside words"),
        ("a dog " * 9, "at most 14 tokens, found 18"),
    ],
)
def test_a_prompt_that_would_mean_something_else_is_refused(
    loaded: Loaded, prompt: str, said: str
) -> None:
    _, concepts = loaded.patched()
    with pytest.raises(ValueError, match=said):
        loaded.features(concepts, prompt)


def test_signs_that_are_no_brackets_around_a_word_are_text(loaded: Loaded) -> None:
    _, concepts = loaded.patched()
    assert loaded.features(concepts, "a <toy> dog, 1 < y and z > 2").shape[-1] > 0


def test_another_base_or_folder_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    load = loaded.node("L2dmLoadGated")
    with pytest.raises(ValueError, match=r"expected gated\.safetensors in .*, found none"):
        load(Patcher(loaded.base.denoiser), str(tmp_path))
    other = nn.Module()
    with pytest.raises(ValueError, match=r"learned on another base model: .* maps \(0, 0\)"):
        load(Patcher(other), str(loaded.folder))


def test_the_nodes_open_the_rows_that_the_library_opens() -> None:
    from l2dm.export.comfyui_nodes import rows_of

    ids = torch.tensor(list(itertools.product([1, 3, 4, -2, -3], repeat=5)))
    everyone, noun = {-2, -3}, [3, 4]
    for own in everyone:
        wanted = {
            "token": prompt_rows.token_gate(ids, own),
            "span": prompt_rows.span_gate(ids, own, noun),
            "prompt": prompt_rows.prompt_gate(ids, own, everyone),
        }
        for gate, rows in wanted.items():
            for one, row in zip(ids.tolist(), rows.tolist(), strict=True):
                if own in one:
                    assert rows_of(one, gate, own, noun, everyone) == row
