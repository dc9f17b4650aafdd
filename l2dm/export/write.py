"""A release as files that other tools read: plain diffusers, ComfyUI, A1111.

    lowrank    LoRA in two spellings (diffusers, kohya) and one textual inversion per concept
    gated      weights and one self-contained diffusers pipeline file; LoRA files per concept where
               the gate is a whole prompt
    spectral   a whole diffusers folder, because singular values are not a low-rank change

What was written is read back with plain diffusers and compared before it appears (`plain.py`).
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import parametrize

from l2dm import __version__, doors
from l2dm.bases import folder as base_folder
from l2dm.bases.attach import ROWS, WEIGHTS
from l2dm.bases.model import Model
from l2dm.errors import BadInput, DoesNotFit
from l2dm.export import readme, verify
from l2dm.files import manifest
from l2dm.files.manifest import Door
from l2dm.releases import folder as releases
from l2dm.releases.load import load_release

RECORD = "export.json"
README = "README.md"
GATED_FORMAT = "l2dm-gated-1"  # gated_pipeline.FORMAT; a test holds them together


def export(release: Path, base: str, out: Path) -> tuple[Path, ...]:
    """Write a release's files into the new folder `out` and return them, sorted.

    The folder appears whole or not at all. Raises BadInput when `out` holds anything or the
    release has learned nothing, DoesNotFit when plain diffusers draws another picture.
    """
    out = out.resolve()
    _require_free(out)
    door = manifest.read(release, doors.Release)
    adapter = releases.adapter_of(release)
    if adapter.record.kind == "none":
        raise BadInput(
            f"expected a release that knows a concept, found the empty one of line "
            f"{door.record.line!r} in {release}; learn a concept first"
        )
    # what is written does not depend on this machine's GPU, and diffusers' own is on the CPU, too
    model = load_release(release, base, device=torch.device("cpu"))
    wanted = verify.reference(model, adapter.record.concepts)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(out)
    try:
        _fill(draft, door, adapter, model)
        _write_texts(draft, door, adapter, model)
        folder = model.folder
        del model  # two bases in memory at once would be one too many on a small machine
        verify.verify(draft, folder, adapter.record, door.record.line, wanted)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return tuple(sorted(path for path in out.rglob("*") if path.is_file()))


def kohya(weights: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """LoRA weights in the spelling of kohya's trainer, which ComfyUI and A1111 read.

    `<layer>.lora_A.weight`, (r, d_in), becomes `lora_unet_<layer with _ for .>.lora_down.weight`,
    lora_B, (d_out, r), becomes lora_up, and every layer says its alpha, ().
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, which = name.removesuffix(".weight").rpartition(".")
        stem = f"lora_unet_{layer.replace('.', '_')}"
        renamed[f"{stem}.{'lora_down' if which == 'lora_A' else 'lora_up'}.weight"] = tensor
        renamed[f"{stem}.alpha"] = torch.tensor(float(rank))
    return renamed


def text_model_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's weights with the prefix that transformers 5.6 dropped and others ask for.

    Shapes stay.
    """
    return {f"text_model.{name.removeprefix('text_model.')}": t for name, t in weights.items()}


def as_lora(weights: Mapping[str, Tensor], concept: str) -> dict[str, Tensor]:
    """One concept's gated paths as LoRA weights in float32: A = down^T, B = up^T.

    weights: `<concept>/<layer>.down`, (d_in, r), and `.up`, (r, d_out). Returns lora_A, (r, d_in),
    and lora_B, (d_out, r), by layer.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        owner, _, path = name.partition("/")
        layer, _, which = path.rpartition(".")
        if owner == concept:
            key = f"{layer}.{'lora_A' if which == 'down' else 'lora_B'}.weight"
            found[key] = tensor.float().t().contiguous()
    return found


def _fill(
    draft: Path, release: Door[doors.Release], adapter: Door[doors.Adapter], model: Model
) -> None:
    record = adapter.record
    weights = load_file(adapter.path(WEIGHTS))
    _save_embeddings(draft / verify.EMBEDDINGS, load_file(adapter.path(ROWS)))
    match record.kind:
        case "lowrank":
            line, rank = release.record.line, int(record.settings["rank"])
            _save_lora(draft, line, weights, rank, model.family.denoiser)
        case "gated":
            _save_gated(draft, record, weights, model.family.pipeline)
        case "spectral":
            _save_merged(draft, model)
        case _:
            raise DoesNotFit(f"adapter kind {record.kind!r} is unknown to this version's export")


def _save_embeddings(folder: Path, rows: Mapping[str, Tensor]) -> None:
    """One textual inversion per concept: diffusers reads the key as the word, others the file."""
    folder.mkdir()
    for name, row in rows.items():
        save_file({f"<{name}>": row.float().contiguous()}, folder / f"{name}.safetensors")


def _save_lora(
    folder: Path, line: str, weights: Mapping[str, Tensor], rank: int, network: str
) -> None:
    """Write both spellings. Alpha is the rank, and both say so: not every reader assumes it."""
    layers = sorted({name.rpartition(".lora_")[0] for name in weights})
    said = {"r": rank, "lora_alpha": rank, "target_modules": layers}
    config = {f"{network}.{key}": value for key, value in said.items()}
    save_file(
        {f"{network}.{name}": tensor for name, tensor in weights.items()},
        folder / verify.LORA,
        metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)},
    )
    _save_kohya(folder / f"{line}.kohya.safetensors", weights, rank)


def _save_kohya(path: Path, weights: Mapping[str, Tensor], rank: int) -> None:
    metadata = {"ss_network_dim": str(rank), "ss_network_alpha": str(float(rank))}
    save_file(
        kohya(weights, rank),
        path,
        metadata={"format": "pt", "ss_network_module": "networks.lora"} | metadata,
    )


def _save_gated(
    folder: Path, record: doors.Adapter, weights: Mapping[str, Tensor], pipeline: str
) -> None:
    gate = str(record.settings["gate"])
    concepts = [[concept.name, concept.class_noun] for concept in record.concepts]
    metadata = {"format": GATED_FORMAT, "gate": gate, "concepts": json.dumps(concepts)}
    save_file(dict(weights), folder / "gated.safetensors", metadata=metadata)
    source = files("l2dm.export").joinpath("gated_pipeline.py").read_text(encoding="utf-8")
    if f"class {verify.gated_name(pipeline)}(" not in source:
        raise DoesNotFit(
            f"expected a base whose gated concepts can be exported, found one that diffusers draws "
            f"with {pipeline}; the export knows no pipeline file for it"
        )
    manifest.write_text(folder / verify.PIPELINE, source)
    if gate == "prompt":
        (folder / "lora").mkdir()
        for concept in record.concepts:
            path = folder / "lora" / f"{concept.name}.kohya.safetensors"
            _save_kohya(path, as_lora(weights, concept.name), int(record.settings["rank"]))


def _save_merged(folder: Path, model: Model) -> None:
    """The base's folder with the shifted weights in it. Uses the model up."""
    model.placeholders.remove()
    networks = model.networks.named()
    for name, network in networks.items():
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        network.save_pretrained(folder / name, safe_serialization=True, max_shard_size="100GB")
        _forget_folder(folder / name / "config.json")
        if type(network).__name__ == "CLIPTextModel":
            path = folder / name / "model.safetensors"
            save_file(text_model_names(load_file(path)), path, metadata={"format": "pt"})
    index = json.loads((model.folder / "model_index.json").read_text(encoding="utf-8"))
    for part, entry in index.items():
        if isinstance(entry, list) and entry[0] and part not in networks:
            shutil.copytree(model.folder / part, folder / part)
    _write_json(folder / "model_index.json", index)


def _forget_folder(config: Path) -> None:
    """Drop the path on the exporting machine, which diffusers writes into a config."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    _write_json(config, content)


def _write_texts(
    draft: Path, release: Door[doors.Release], adapter: Door[doors.Adapter], model: Model
) -> None:
    record, learned = release.record, adapter.record
    content: dict[str, Any] = {
        "line": record.line,
        "task": record.task,
        "method": learned.method,
        "kind": learned.kind,
        "settings": dict(learned.settings),
        "concepts": [manifest.to_data(c) | {"word": c.placeholder} for c in learned.concepts],
        "digests": {
            "release": release.digest,
            "adapter": record.adapter,
            "memory": record.memory,
            "scores": record.scores,
        },
        "base": {"name": _public_name(model), "fingerprint": model.fingerprint},
        "sampling": {"steps": model.steps, "guidance": model.guidance},
        "resolution": model.resolution,
        "code": __version__,
    }
    _write_json(draft / RECORD, content)
    facts = readme.Facts(
        line=record.line,
        task=record.task,
        pipeline=model.family.pipeline,
        kind=learned.kind,
        gate=str(learned.settings.get("gate", "")),
        concepts=learned.concepts,
        base=_public_name(model),
        fingerprint=model.fingerprint,
        variant=base_folder.variant(model.folder),
        steps=model.steps,
        guidance=model.guidance,
    )
    (draft / README).write_text(readme.text(facts), encoding="utf-8")


def _public_name(model: Model) -> str:
    """How somebody else would find the base: its name on a hub, or its folder's name, no path."""
    is_path = model.name != "pocket" and Path(model.name).is_dir()
    return model.folder.name if is_path else model.name


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "a folder that holds files" if out.is_dir() else "a file"
        raise BadInput(
            f"expected a new or empty folder to export into, found {what} at {out}; nothing was "
            "written; choose another folder or empty this one"
        )


def _draft(out: Path) -> Path:
    """A hidden sibling, without those that a kill left behind."""
    for old in out.parent.glob(f".{out.name}.draft-*"):
        shutil.rmtree(old, ignore_errors=True)
    draft = out.parent / f".{out.name}.draft-{uuid.uuid4().hex[:8]}"
    draft.mkdir()
    return draft


def _write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
