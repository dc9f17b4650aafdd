"""The three forms in which other tools read an adapter. Its kind says which one it takes.

* lora: two spellings (diffusers, kohya)
* gated: weights and one self-contained diffusers pipeline file; concepts alone as LoRA files
* merged: a whole diffusers folder
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from l2dm.bases import folder as base_folder
from l2dm.bases.checks.files import MAX_WORDS, TEXT, Files
from l2dm.bases.model import Model
from l2dm.doors import Concept
from l2dm.errors import DoesNotFit
from l2dm.files.manifest import write_text

Form = Literal["lora", "gated", "merged"]
LORA = "pytorch_lora_weights.safetensors"
PIPELINE = "pipeline.py"
NODES = "comfyui_l2dm_gated.py"
GATED_FORMAT = "l2dm-gated-1"  # gated_pipeline.FORMAT; a test holds them together


class FormWriter:
    """Writes what an adapter hands over (`adapters.contract.ExportWriter`) into a folder.

    line: names the file that ComfyUI and A1111 read. concepts: of the release; their words stand
    in the headers. base: how somebody else would find it. form: the one that was written.
    """

    form: Form

    def __init__(
        self, folder: Path, line: str, model: Model, concepts: Sequence[Concept], base: str
    ) -> None:
        self._folder, self._line, self._model = folder, line, model
        self._concepts, self._base = concepts, base

    def lora(self, weights: Mapping[str, Tensor], rank: int) -> None:
        """Both spellings. Alpha is the rank, and both say so: not every reader assumes it."""
        self.form, network = "lora", self._model.family.denoiser
        path = self._folder / f"{self._line}.kohya.safetensors"
        self._kohya(path, weights, rank, self._concepts)
        layers = sorted({name.rpartition(".lora_")[0] for name in weights})
        said = {"r": rank, "lora_alpha": rank, "target_modules": layers}
        config = {f"{network}.{key}": value for key, value in said.items()}
        save_file(
            {f"{network}.{name}": tensor for name, tensor in weights.items()},
            self._folder / LORA,
            metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)},
        )

    def gated(self, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Weights, and what reads them: a pipeline of diffusers, nodes of ComfyUI."""
        self.form, pipeline = "gated", self._model.family.pipeline
        header = {"format": GATED_FORMAT} | dict(metadata)
        save_file(dict(weights), self._folder / "gated.safetensors", metadata=header)
        source = files("l2dm.export").joinpath("gated_pipeline.py").read_text(encoding="utf-8")
        if f"class {gated_name(pipeline)}(" not in source:
            raise DoesNotFit(
                f"expected a base whose gated concepts can be exported, found one that diffusers "
                f"draws with {pipeline}; the export knows no pipeline file for it"
            )
        write_text(self._folder / PIPELINE, source)
        nodes = files("l2dm.export").joinpath("comfyui_nodes.py").read_text(encoding="utf-8")
        write_text(self._folder / NODES, nodes)

    def concept_lora(self, concept: str, weights: Mapping[str, Tensor], rank: int) -> None:
        """In kohya's spelling, for tools that know no other."""
        folder = self._folder / "lora"
        folder.mkdir(exist_ok=True)
        own = [one for one in self._concepts if one.name == concept]
        self._kohya(folder / f"{concept}.kohya.safetensors", weights, rank, own)

    def merged(self) -> None:
        """The base's folder with the changed weights in it. Uses the model up."""
        self.form, folder, model = "merged", self._folder, self._model
        model.placeholders.remove()
        networks: Mapping[str, Any] = model.networks.named()
        prefixes = {part.name: part.prefix for part in model.family.parts}
        for name, network in networks.items():
            network.save_pretrained(folder / name, safe_serialization=True, max_shard_size="100GB")
            _forget_folder(folder / name / "config.json")
            if prefix := prefixes[name]:
                path = folder / name / "model.safetensors"
                save_file(prefixed(load_file(path), prefix), path, metadata={"format": "pt"})
        _copy_rest(model, folder)

    def _kohya(
        self, path: Path, weights: Mapping[str, Tensor], rank: int, concepts: Sequence[Concept]
    ) -> None:
        family = self._model.family
        if not family.kohya:
            raise DoesNotFit(
                f"expected a base whose LoRA files ComfyUI and A1111 read, found one of family "
                f"{family.name}, which has no name in them; draw with `l2dm generate` instead"
            )
        metadata = {
            "format": "pt",
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(rank),
            "ss_network_alpha": str(float(rank)),
            "ss_sd_model_name": self._base,
            "ss_output_name": path.name.partition(".")[0],
            **base_folder.lora_header(self._model.folder, self._model.noise.prediction),
            **words(self._line, concepts),
        }
        save_file(kohya(weights, rank, family.kohya), path, metadata=metadata)


def words(line: str, concepts: Sequence[Concept]) -> dict[str, str]:
    """What a LoRA file's header says of the words that it was learned with.

    Readers show `ss_tag_frequency` and the trigger phrase as what to type: the embedding's name,
    which is the concept's, and its noun.
    """
    phrases = [f"{one.name} {one.class_noun}" for one in concepts]
    known = ", ".join(f"{one.placeholder} is a {one.class_noun}" for one in concepts)
    return {
        "ss_tag_frequency": json.dumps({line: dict.fromkeys(phrases, 1)}, ensure_ascii=False),
        "modelspec.title": f"{line}: {', '.join(one.name for one in concepts)}",
        "modelspec.trigger_phrase": ", ".join(phrases),
        "modelspec.description": f"Model line {line} of l2dm. {known}. Load the files of "
        "embeddings/ as well: they hold the words.",
    }


def _copy_rest(model: Model, folder: Path) -> None:
    """What the base holds besides networks, of the parts that we know, and the index of all.

    Plain files of the base's own folder with known endings: a name in an index is no path, a link
    is not followed out of the base, and neither pickles nor code go along.
    """
    base, family = Files(model.folder), model.family
    rest = [part.name for part in family.parts if not part.weights]
    for part in (*rest, "scheduler"):
        (folder / part).mkdir()
        for name in base.names(part):
            if Path(name).suffix in TEXT and not name.startswith("."):
                data = base.file(f"{part}/{name}", MAX_WORDS).read_bytes()
                (folder / part / name).write_bytes(data)
    index = base.json("model_index.json")
    known = {*(part.name for part in family.parts), "scheduler"}
    kept = {
        name: entry if name in known else [None, None]
        for name, entry in index.items()
        if name in known or (isinstance(entry, list) and name.isidentifier())
    }
    about = {name: index[name] for name in ("_class_name", "_diffusers_version") if name in index}
    write_json(folder / "model_index.json", about | kept | {"requires_safety_checker": False})


def gated_name(pipeline: str) -> str:
    """The class in `pipeline.py` that draws where diffusers draws with the class `pipeline`."""
    return f"Gated{pipeline}"


def kohya(weights: Mapping[str, Tensor], rank: int, denoiser: str) -> dict[str, Tensor]:
    """LoRA weights in the spelling of kohya's trainer, which ComfyUI and A1111 read.

    `<layer>.lora_A.weight`, (r, d_in), becomes `<denoiser>_<layer with _ for .>.lora_down.weight`,
    lora_B, (d_out, r), becomes lora_up, and every layer says its alpha, (). denoiser: the family's.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, which = name.removesuffix(".weight").rpartition(".")
        stem = f"{denoiser}_{layer.replace('.', '_')}"
        renamed[f"{stem}.{'lora_down' if which == 'lora_A' else 'lora_up'}.weight"] = tensor
        renamed[f"{stem}.alpha"] = torch.tensor(float(rank))
    return renamed


def prefixed(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights whose names all begin with a part's prefix. Shapes stay as they are."""
    return {f"{prefix}{name.removeprefix(prefix)}": tensor for name, tensor in weights.items()}


def write_json(path: Path, content: Any) -> None:
    """As a person reads it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _forget_folder(config: Path) -> None:
    """Drop the path on the exporting machine, which diffusers writes into a config."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    write_json(config, content)
