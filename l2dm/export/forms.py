"""The three forms in which other tools read an adapter. Its kind says which one it takes.

* lora: two spellings (diffusers, kohya)
* gated: weights and one self-contained diffusers pipeline file; concepts alone as LoRA files
* merged: a whole diffusers folder
"""

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from l2dm.bases.model import Model
from l2dm.errors import DoesNotFit
from l2dm.files.manifest import write_text

Form = Literal["lora", "gated", "merged"]
LORA = "pytorch_lora_weights.safetensors"
PIPELINE = "pipeline.py"
GATED_FORMAT = "l2dm-gated-1"  # gated_pipeline.FORMAT; a test holds them together


class FormWriter:
    """Writes what an adapter hands over (`adapters.contract.ExportWriter`) into a folder.

    line: names the file that ComfyUI and A1111 read. form: the one that was written.
    """

    form: Form

    def __init__(self, folder: Path, line: str, model: Model) -> None:
        self._folder, self._line, self._model = folder, line, model

    def lora(self, weights: Mapping[str, Tensor], rank: int) -> None:
        """Both spellings. Alpha is the rank, and both say so: not every reader assumes it."""
        self.form, network = "lora", self._model.family.denoiser
        self._kohya(self._folder / f"{self._line}.kohya.safetensors", weights, rank)
        layers = sorted({name.rpartition(".lora_")[0] for name in weights})
        said = {"r": rank, "lora_alpha": rank, "target_modules": layers}
        config = {f"{network}.{key}": value for key, value in said.items()}
        save_file(
            {f"{network}.{name}": tensor for name, tensor in weights.items()},
            self._folder / LORA,
            metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True)},
        )

    def gated(self, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Weights, and the pipeline file that reads them."""
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

    def concept_lora(self, concept: str, weights: Mapping[str, Tensor], rank: int) -> None:
        """In kohya's spelling, for tools that know no other."""
        folder = self._folder / "lora"
        folder.mkdir(exist_ok=True)
        self._kohya(folder / f"{concept}.kohya.safetensors", weights, rank)

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
        index = json.loads((model.folder / "model_index.json").read_text(encoding="utf-8"))
        for part, entry in index.items():
            if isinstance(entry, list) and entry[0] and part not in networks:
                shutil.copytree(model.folder / part, folder / part)
        write_json(folder / "model_index.json", index)

    def _kohya(self, path: Path, weights: Mapping[str, Tensor], rank: int) -> None:
        family = self._model.family
        if not family.kohya:
            raise DoesNotFit(
                f"expected a base whose LoRA files ComfyUI and A1111 read, found one of family "
                f"{family.name}, which has no name in them; draw with `l2dm generate` instead"
            )
        metadata = {"ss_network_dim": str(rank), "ss_network_alpha": str(float(rank))}
        save_file(
            kohya(weights, rank, family.kohya),
            path,
            metadata={"format": "pt", "ss_network_module": "networks.lora"} | metadata,
        )


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
