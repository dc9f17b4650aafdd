"""Put an adapter on a model: a fresh one to train, or the one that a door holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from l2dm import doors
from l2dm.adapters import gated, lowrank, spectral
from l2dm.adapters.contract import Adapter
from l2dm.bases.diffusion import generator_for
from l2dm.bases.model import Model
from l2dm.bases.prompts import prompt_gate, span_gate, token_gate
from l2dm.errors import DoesNotFit
from l2dm.files.manifest import Door
from l2dm.spec import TrainSpec

WEIGHTS = "adapter.safetensors"
ROWS = "tokens.safetensors"


def attach_lowrank(model: Model, *, rank: int, generator: torch.Generator) -> lowrank.LowRank:
    """A fresh LoRA on the layers that make keys and values of text."""
    targets = list(model.text_layers())
    adapter = lowrank.attach(model.denoiser, targets, rank=rank, generator=generator)
    model.adapter = adapter
    return adapter


def attach_spectral(model: Model) -> spectral.Spectral:
    """Fresh spectral shifts on the networks that the family names (UNet and text encoder)."""
    adapter = spectral.attach(model.shifted())
    model.adapter = adapter
    return adapter


def attach_gated(model: Model, gate: str) -> gated.Gated:
    """Fresh gated layers without any concept on the layers that make keys and values of text."""
    adapter = gated.attach(model.denoiser, model.text_layers(), _gate(model, gate))
    model.adapter = adapter
    return adapter


def attach_door(model: Model, door: Door[doors.Adapter]) -> Adapter:
    """Put a learned adapter and its placeholders on a model that carries none.

    Raises DoesNotFit when the base is not the one it was trained on, or any weight does not match.
    """
    record = door.record
    if model.adapter.kind != "none":
        raise DoesNotFit("the model carries an adapter already; load the base again")
    if record.base != model.fingerprint:
        raise DoesNotFit(
            f"adapter {door.digest[:12]} was trained on base {record.base}, this run loads "
            f"{model.fingerprint} ({model.name}); pass the base that its line was started with"
        )
    if record.kind == "none":
        return model.adapter
    add_rows(model, record.concepts, load_file(door.path(ROWS)))
    adapter = _empty(model, record)
    adapter.load(load_file(door.path(WEIGHTS)))
    return adapter


def add_rows(model: Model, concepts: tuple[doors.Concept, ...], rows: Mapping[str, Tensor]) -> None:
    """Teach a model the placeholders of these concepts. rows: (1, D) per concept name."""
    names = {concept.name for concept in concepts}
    if names != rows.keys():
        raise DoesNotFit(
            f"adapter lists concepts {sorted(names)} but holds token rows {sorted(rows)}; "
            "train the task again"
        )
    for concept in concepts:
        row = rows[concept.name]
        if not torch.isfinite(row).all():
            raise DoesNotFit(f"token row of <{concept.name}> holds NaN or infinity; train it again")
        model.add_placeholder(concept.name, row.reshape(-1))


def begin_shared(
    model: Model,
    parent: Door[doors.Adapter],
    concept: doors.Concept,
    spec: TrainSpec,
    seed: int,
) -> nn.Parameter:
    """Attach one adapter for the whole line, holding the parent's weights, ready to train.

    Returns the new concept's token row, which starts at its class noun. Rows of earlier concepts
    stay frozen. Raises DoesNotFit when the line has an adapter of another kind or rank.
    """
    record = parent.record
    if record.kind == "none":
        generator = generator_for(seed, "adapter")
        if spec.adapter == "lowrank":
            attach_lowrank(model, rank=spec.rank, generator=generator)
        else:
            attach_spectral(model)
    else:
        found = (record.kind, record.settings.get("rank", spec.rank))
        if found != (spec.adapter, spec.rank):
            raise DoesNotFit(
                f"the line's adapter is {found[0]} of rank {found[1]}, the spec asks for "
                f"{spec.adapter} of rank {spec.rank}; a line keeps its adapter"
            )
        attach_door(model, parent)
    row = model.add_placeholder(concept.name, model.noun_row(concept.class_noun))
    row.requires_grad_(True)
    return row


def shared_state(model: Model, spec: TrainSpec) -> dict[str, Any]:
    """The fields of `methods.Learned` for an adapter that the whole line shares."""
    settings = {"rank": spec.rank} if model.adapter.kind == "lowrank" else {}
    rows = {name: row.unsqueeze(0).cpu() for name, row in model.placeholders.state().items()}
    return {
        "kind": model.adapter.kind,
        "settings": settings,
        "weights": model.adapter.state(),
        "rows": rows,
    }


def save(folder: Path, weights: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> None:
    """Write `adapter.safetensors` and `tokens.safetensors`."""
    for file, tensors in ((WEIGHTS, weights), (ROWS, rows)):
        save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, folder / file)


def _empty(model: Model, record: doors.Adapter) -> Adapter:
    generator = torch.Generator()  # every weight it draws is overwritten by `load`
    rank = int(record.settings.get("rank", 0))
    match record.kind:
        case "lowrank":
            return attach_lowrank(model, rank=rank, generator=generator)
        case "spectral":
            return attach_spectral(model)
        case "gated":
            adapter = attach_gated(model, str(record.settings["gate"]))
            for concept in record.concepts:
                adapter.add(concept.name, rank=rank, generator=generator, noun=concept.class_noun)
            return adapter
    raise DoesNotFit(f"adapter kind {record.kind!r} is unknown to this version of the library")


def _gate(model: Model, kind: str) -> gated.Gate:
    """The rows that a concept owns in a prompt; docs/methods.md names the three gates."""
    ids_of = model.placeholders.ids

    def token(ids: Tensor, name: str, noun: str) -> Tensor:
        return token_gate(ids, ids_of[name])

    def span(ids: Tensor, name: str, noun: str) -> Tensor:
        return span_gate(ids, ids_of[name], model.token_ids(noun))

    def prompt(ids: Tensor, name: str, noun: str) -> Tensor:
        return prompt_gate(ids, ids_of[name], set(ids_of.values()))

    match kind:
        case "token":
            return token
        case "span":
            return span
        case "prompt":
            return prompt
    raise DoesNotFit(f"gate {kind!r} is unknown; expected token, span or prompt")
