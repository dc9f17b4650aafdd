"""Plain diffusers, in a process that never imported l2dm, draws from exports what we draw."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from l2dm import doors
from l2dm.adapters.gated import as_lora
from l2dm.bases.families.stable_diffusion import FAMILY
from l2dm.bases.model import Model, load_base
from l2dm.bases.sampling import Shot, draw
from l2dm.errors import BadBase, BadInput, DoesNotFit
from l2dm.export import forms
from l2dm.export import write as export
from l2dm.files import manifest
from l2dm.files.images import load_png
from l2dm.releases import folder as releases
from l2dm.releases.load import load_release
from l2dm.spec import SamplingSpec
from tests.worlds.handmade import KINDS, LINE, make_release

SPEC = SamplingSpec(steps=3, guidance=2.0)
PROMPTS = {
    "none": "a photo of a dog",
    "one": "a photo of a <toy> dog",
    "other": "a blue <toy2> red cup in the cup",
    "two": "a <toy> dog and a <toy2> red cup",
    "apart": "a <toy> and the dog",
}


@dataclass(frozen=True)
class Exported:
    kind: str
    release: Path
    folder: Path
    files: tuple[Path, ...]


@pytest.fixture(scope="module")
def exported(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    root = tmp_path_factory.mktemp("export")
    found = {}
    for kind in KINDS:
        release = make_release(root / f"{kind}-release", str(tiny_base), kind)
        folder = root / kind
        files = export.export(release, str(tiny_base), folder)
        found[kind] = Exported(kind, release, folder, files)
    return found


@pytest.fixture(scope="module")
def drawn(
    tiny_base: Path, exported: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, numpy.ndarray], str]:
    """Everything that the other process drew, and what it said."""
    root = tmp_path_factory.mktemp("plain")
    call = {"num_inference_steps": SPEC.steps, "guidance_scale": SPEC.guidance, "seeds": [5]}
    calls = {name: call | {"prompt": prompt} for name, prompt in PROMPTS.items()}
    pairs = {"prompt": [PROMPTS["one"], PROMPTS["none"]], "num_images_per_prompt": 2}
    calls["batch"] = call | pairs | {"seeds": [1, 2, 3, 4]}

    def job(name: str, load: str, kind: str, **options: object) -> dict[str, object]:
        folder = str(exported[kind].folder)
        base = folder if load == "merged" else str(tiny_base)
        start = {"name": name, "load": load, "base": base, "folder": folder, "readme": True}
        return start | {"calls": calls, "file": forms.LORA} | options

    jobs = [
        job("base", "base", "lowrank", readme=False, calls={"none": calls["none"]}),
        job("lowrank", "lora", "lowrank"),
        job("kohya", "lora", "lowrank", readme=False, file=f"{LINE}.kohya.safetensors"),
        job("spectral", "merged", "spectral"),
        *[job(gate, "gated", gate) for gate in ("token", "span", "prompt")],
    ]
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).parents[2] / "worlds" / "draw_plainly.py"
    done = subprocess.run(
        [sys.executable, script, root / "jobs.json", root / "out.npz"],
        env=environment, cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with numpy.load(root / "out.npz") as archive:
        return dict(archive), done.stderr


@pytest.fixture(scope="module")
def models(tiny_base: Path, exported: dict[str, Exported]) -> dict[str, Model]:
    return {kind: load_release(one.release, str(tiny_base)) for kind, one in exported.items()}


SAME = [("lowrank", "lowrank"), ("kohya", "lowrank"), ("spectral", "spectral")]
SAME += [(gate, gate) for gate in ("token", "span", "prompt")]


@pytest.mark.parametrize(("job", "kind"), SAME)
@pytest.mark.parametrize("name", PROMPTS)
def test_plain_diffusers_draws_the_same_picture(
    job: str, kind: str, name: str, drawn: tuple[dict[str, numpy.ndarray], str],
    models: dict[str, Model],
) -> None:  # fmt: skip
    ours = draw(models[kind], [Shot(PROMPTS[name], 5)], SPEC)
    theirs = torch.from_numpy(drawn[0][f"{job}/{name}"]).permute(0, 3, 1, 2)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("job", "kind"), SAME)
def test_a_batch_with_and_without_placeholder_is_drawn_alike(
    job: str, kind: str, drawn: tuple[dict[str, numpy.ndarray], str], models: dict[str, Model]
) -> None:
    texts = [PROMPTS["one"], PROMPTS["one"], PROMPTS["none"], PROMPTS["none"]]
    shots = [Shot(text, seed) for text, seed in zip(texts, [1, 2, 3, 4], strict=True)]
    theirs = torch.from_numpy(drawn[0][f"{job}/batch"]).permute(0, 3, 1, 2)
    # The empty prompt is encoded once by us and once per prompt by diffusers: last bits may differ.
    assert (draw(models[kind], shots, SPEC).int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize(("job", "kind"), SAME)
@pytest.mark.parametrize("name", PROMPTS)
def test_rows_outside_the_table_and_a_resized_table_give_equal_text_features(
    job: str, kind: str, name: str, drawn: tuple[dict[str, numpy.ndarray], str],
    models: dict[str, Model],
) -> None:  # fmt: skip
    with torch.no_grad():
        ours = models[kind].read([PROMPTS[name]]).states
    assert torch.equal(ours, torch.from_numpy(drawn[0][f"{job}/{name}/text"]))


def test_the_adapters_of_this_test_change_pictures(models: dict[str, Model]) -> None:
    for model in models.values():
        shots = [Shot(PROMPTS["one"], 5)]
        with_adapter = draw(model, shots, SPEC)
        with model.plain():
            assert (draw(model, shots, SPEC).int() - with_adapter.int()).abs().max() > 2


@pytest.mark.parametrize("gate", ["token", "span", "prompt"])
def test_gated_without_placeholder_is_the_base_byte_for_byte(
    gate: str, drawn: tuple[dict[str, numpy.ndarray], str]
) -> None:
    assert (drawn[0][f"{gate}/none"] == drawn[0]["base/none"]).all()
    assert (drawn[0][f"{gate}/one"] != drawn[0]["base/none"]).any()


def test_the_three_gates_draw_three_pictures(drawn: tuple[dict[str, numpy.ndarray], str]) -> None:
    pictures = [drawn[0][f"{gate}/one"] for gate in ("token", "span", "prompt")]
    for first, second in itertools.combinations(pictures, 2):
        assert (first != second).any()


def test_diffusers_warns_of_no_missing_or_unexpected_key(
    drawn: tuple[dict[str, numpy.ndarray], str],
) -> None:
    assert "missing keys" not in drawn[1]
    assert "unexpected keys" not in drawn[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_program_runs_and_draws_what_we_draw(
    kind: str, exported: dict[str, Exported], models: dict[str, Model],
    drawn: tuple[dict[str, numpy.ndarray], str],
) -> None:  # fmt: skip
    advised = SamplingSpec(steps=3, guidance=2.0)  # tiny's sampling.json
    ours = draw(models[kind], [Shot("a photo of a <toy2> red cup", 0)], advised)
    assert torch.equal(load_png(exported[kind].folder / "picture.png"), ours[0])


def test_the_record_says_where_the_files_come_from(
    exported: dict[str, Exported], models: dict[str, Model]
) -> None:
    one = exported["token"]
    record = json.loads((one.folder / "export.json").read_text())
    release = manifest.read(one.release, doors.Release)
    assert record["digests"]["release"] == release.digest
    assert record["digests"]["adapter"] == releases.adapter_of(one.release).digest
    assert record["base"]["fingerprint"] == models["token"].fingerprint
    assert record["sampling"] == {"steps": 3, "guidance": 2.0}
    assert record["concepts"][1] == {"name": "toy2", "class_noun": "red cup", "word": "<toy2>"}
    assert (record["line"], record["task"], record["settings"]["gate"]) == ("b", "t0002", "token")


EMBEDDINGS = {"embeddings/toy.safetensors", "embeddings/toy2.safetensors"}
TEXTS = {"README.md", "export.json"}
GATED = {"gated.safetensors", "pipeline.py", forms.NODES}
LORAS = {"lora/toy.kohya.safetensors", "lora/toy2.kohya.safetensors"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lowrank", {forms.LORA, "b.kohya.safetensors"}),
        ("token", GATED),
        ("span", GATED),
        ("prompt", GATED | LORAS),
    ],
)
def test_the_files_are_listed(kind: str, expected: set[str], exported: dict[str, Exported]) -> None:
    one = exported[kind]
    names = {path.relative_to(one.folder).as_posix() for path in one.files}
    assert names == expected | EMBEDDINGS | TEXTS
    assert list(one.files) == sorted(one.files)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_names_a_path_of_this_machine(kind: str, exported: dict[str, Exported]) -> None:
    for path in exported[kind].files:
        assert str(exported[kind].folder.parent).encode() not in path.read_bytes(), path.name
        assert b"tiny-base" not in path.read_bytes() or path.name in TEXTS, path.name


# --- traps of the formats ---


def test_alpha_is_the_rank_and_is_written(exported: dict[str, Exported]) -> None:
    with safe_open(exported["lowrank"].folder / forms.LORA, "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"]) == (2, 2)
    stored = load_file(exported["lowrank"].folder / "b.kohya.safetensors")
    alphas = {name: value.item() for name, value in stored.items() if name.endswith(".alpha")}
    assert set(alphas.values()) == {2.0}
    assert len(alphas) * 3 == len(stored)


def test_kohya_names_are_spelled_as_comfyui_and_a1111_read_them() -> None:
    layer = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
    down, up = torch.ones(2, 3), torch.zeros(5, 2)
    renamed = forms.kohya(
        {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, 2, "lora_unet"
    )
    stem = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k"
    assert renamed.keys() == {f"{stem}.{end}" for end in ("alpha", *KOHYA_WEIGHTS)}
    assert renamed[f"{stem}.lora_down.weight"] is down
    assert renamed[f"{stem}.lora_up.weight"] is up


KOHYA_WEIGHTS = ("lora_down.weight", "lora_up.weight")


def test_text_encoder_weights_keep_the_prefix_that_older_readers_ask_for(
    exported: dict[str, Exported],
) -> None:
    stored = load_file(exported["spectral"].folder / "text_encoder" / "model.safetensors")
    assert stored
    assert all(name.startswith("text_model.") for name in stored)
    assert not any("parametrizations" in name for name in stored)
    one = torch.ones(1)
    assert forms.prefixed({"a": one, "text_model.b": one}, "text_model.").keys() == {
        "text_model.a", "text_model.b"
    }  # fmt: skip


def test_a_name_that_begins_another_takes_only_its_own_weights() -> None:
    weights = {
        "toy/x.down": torch.tensor([[1.0], [2.0], [3.0]]).half(),  # (d_in, r)
        "toy/x.up": torch.tensor([[4.0, 5.0]]).half(),  # (r, d_out)
        "toy2/x.down": torch.zeros(3, 1).half(),
        "toy2/x.up": torch.zeros(1, 2).half(),
    }
    lora = as_lora(weights, "toy")
    assert lora.keys() == {"x.lora_A.weight", "x.lora_B.weight"}
    assert lora["x.lora_A.weight"].tolist() == [[1.0, 2.0, 3.0]]
    assert lora["x.lora_B.weight"].tolist() == [[4.0], [5.0]]


def test_one_concept_as_lora_predicts_what_the_prompt_gate_predicts(
    tiny_base: Path, exported: dict[str, Exported], models: dict[str, Model]
) -> None:
    lora = load_file(exported["prompt"].folder / "lora" / "toy.kohya.safetensors")
    unet = load_base(str(tiny_base)).denoiser
    for name, module in unet.named_modules():
        stem = f"lora_unet_{name.replace('.', '_')}"
        if f"{stem}.alpha" in lora:
            down, up = lora[f"{stem}.lora_down.weight"], lora[f"{stem}.lora_up.weight"]
            module.weight.data += up @ down
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        text = models["prompt"].read(["a photo of a <toy> dog"])
        gated = models["prompt"].predict(noisy, torch.tensor([500]), text)
        merged = unet(noisy, 500, encoder_hidden_states=text.states).sample
    assert torch.allclose(gated, merged, atol=1e-5)


# --- refusals of the export ---


def test_a_folder_that_holds_files_is_left_alone(
    tiny_base: Path, exported: dict[str, Exported], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match=r"expected a new or empty folder .* a folder that holds"):
        export.export(exported["lowrank"].release, str(tiny_base), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(BadInput, match=r"found a file at .*mine\.txt"):
        export.export(exported["lowrank"].release, str(tiny_base), tmp_path / "mine.txt")


def test_an_empty_folder_is_filled(
    tiny_base: Path, exported: dict[str, Exported], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.draft-0000dead").mkdir()  # what a kill leaves behind
    export.export(exported["lowrank"].release, str(tiny_base), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert forms.LORA in names


def test_a_line_that_learned_nothing_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    release = releases.write_empty(tmp_path / "r", "b", load_base(str(tiny_base)).fingerprint)
    with pytest.raises(BadInput, match="found the empty one of line 'b'"):
        export.export(release.folder, str(tiny_base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _double_lora(folder: Path) -> None:
    tensors = load_file(folder / forms.LORA)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / forms.LORA)


def _other_row(folder: Path) -> None:
    path = folder / "embeddings" / "toy.safetensors"
    save_file({"<toy>": load_file(path)["<toy>"] + 1}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_double_lora, "latents that differ by"),
        (_other_row, "other text features for 'a photo of a <toy> dog'"),
    ],
)
def test_files_that_draw_something_else_are_not_handed_out(
    damage: Callable[[Path], None], message: str, tiny_base: Path,
    exported: dict[str, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write = export._write_texts

    def write_and_damage(draft: Path, *rest: object) -> None:
        write(draft, *rest)  # type: ignore[arg-type]
        damage(draft)

    monkeypatch.setattr(export, "_write_texts", write_and_damage)
    with pytest.raises(DoesNotFit, match=message):
        export.export(exported["lowrank"].release, str(tiny_base), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_base_in_half_precision_files_is_named_as_such(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "half"
    shutil.copytree(tiny_base, base)
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (base / part).glob("*.safetensors")
        tensors = {k: t.half() if t.is_floating_point() else t for k, t in load_file(path).items()}
        save_file(tensors, path.with_name(f"{path.stem}.fp16.safetensors"), {"format": "pt"})
        path.unlink()
    release = make_release(tmp_path / "release", str(base), "token")
    capsys.readouterr()
    export.export(release, str(base), tmp_path / "out")
    assert 'variant="fp16"' in (tmp_path / "out" / "README.md").read_text()
    assert capsys.readouterr() == ("", "")  # no bars and notices of diffusers


# --- what other tools read of a file's header ---


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_a_lora_file_says_its_words_and_its_base(
    exported: dict[str, Exported], models: dict[str, Model]
) -> None:
    found = header(exported["lowrank"].folder / "b.kohya.safetensors")
    assert json.loads(found["ss_tag_frequency"]) == {"b": {"toy dog": 1, "toy2 red cup": 1}}
    assert found["modelspec.trigger_phrase"] == "toy dog, toy2 red cup"
    assert "<toy2> is a red cup" in found["modelspec.description"]
    assert (found["ss_v2"], found["ss_base_model_version"]) == ("False", "sd_v1")
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert models["lowrank"].fingerprint in found["ss_sd_model_name"]
    alone = header(exported["prompt"].folder / "lora" / "toy.kohya.safetensors")
    assert json.loads(alone["ss_tag_frequency"]) == {"b": {"toy dog": 1}}
    assert alone["ss_output_name"] == "toy"


@pytest.mark.parametrize(
    ("width", "prediction", "version", "architecture"),
    [
        (768, "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
        (1024, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        (1024, "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
    ],
)
def test_a_lora_of_stable_diffusion_2_says_so(
    width: int, prediction: str, version: str, architecture: str
) -> None:
    unet = {"cross_attention_dim": width, "sample_size": 96}
    said = FAMILY.lora_header({"unet": unet, "vae": {"block_out_channels": [1] * 4}}, prediction)
    assert said["ss_v2"] == str(width == 1024)
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == (
        version,
        architecture,
    )
    assert said["modelspec.resolution"] == "768x768"


def test_only_plain_files_that_are_known_leave_a_base(tiny_base: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_base, base)
    out.mkdir()
    for name in ("code.py", "pickled.bin", "lib.so", ".hidden.json"):
        (base / "scheduler" / name).write_text("x")
    (tmp_path / "leak").mkdir()
    (tmp_path / "leak" / "secret.json").write_text("{}")
    index = json.loads((base / "model_index.json").read_text())
    index |= {"../leak": ["diffusers", "UNet2DConditionModel"], "more": ["x", "y"]}
    (base / "model_index.json").write_text(json.dumps(index))
    forms._copy_rest(SimpleNamespace(folder=base, family=FAMILY), out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    plain = {f"tokenizer/{path.name}" for path in (tiny_base / "tokenizer").iterdir()}
    assert files == {"model_index.json", "scheduler/scheduler_config.json"} | plain
    written = json.loads((out / "model_index.json").read_text())
    assert "../leak" not in written
    assert written["more"] == written["safety_checker"] == [None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "leak", "out"]


@pytest.mark.parametrize("part", ["scheduler", "tokenizer"])
def test_a_link_out_of_a_base_is_not_followed(part: str, tiny_base: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_base, base)
    out.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (base / part / "linked.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadBase, match=r"linked\.json"):
        forms._copy_rest(SimpleNamespace(folder=base, family=FAMILY), out)
