"""Releases made by hand: two concepts, random weights that are not zero, nothing trained."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from l2dm import doors
from l2dm.bases import attach
from l2dm.bases.model import load_base
from l2dm.files import manifest
from l2dm.releases import folder as releases

CONCEPTS = (doors.Concept("toy", "dog"), doors.Concept("toy2", "red cup"))
LINE = "b"
KINDS = ("lowrank", "spectral", "token", "span", "prompt")  # the last three are gates


def make_release(folder: Path, base: str, kind: str) -> Path:
    """A release that knows both concepts, with random weights that are not zero."""
    adapter = make_adapter(folder.with_name(f"{folder.name}-adapter"), base, kind)
    bank = doors.Memory(base=adapter.record.base, long_term=())
    memory = manifest.write(
        folder.with_name(f"{folder.name}-memory"), bank,
        lambda draft: save_file({}, draft / releases.LONG_TERM),
    )  # fmt: skip
    rows = doors.Scores(adapter.record.base, ("base",), (), {}, (), {})
    scores = manifest.write(folder.with_name(f"{folder.name}-scores"), rows, lambda _: None)
    task = doors.Task(
        id="t0002", line=LINE, concept=CONCEPTS[1], pictures=(), prompts=(), parent="",
        parent_version=1, base=adapter.record.base, seed=0,
    )  # fmt: skip
    door = releases.write(
        folder, releases.Parts(adapter, memory, scores), line=LINE, task=task,
        verdict=doors.Verdict(True, ("made by hand",)), spec={}, parent="",
    )  # fmt: skip
    return door.folder


def make_adapter(folder: Path, base: str, kind: str) -> manifest.Door[doors.Adapter]:
    model = load_base(base)
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    rows = {c.name: torch.randn(1, 24, generator=generator) for c in CONCEPTS}
    attach.add_rows(model, CONCEPTS, rows)
    settings: dict[str, str | int | float] = {"rank": 2}
    if kind == "lowrank":
        attach.attach_lowrank(model, rank=2, generator=generator)
    elif kind == "spectral":
        attach.attach_spectral(model)
        settings = {}
    else:
        gated = attach.attach_gated(model, kind)
        for concept in CONCEPTS:
            gated.add(concept.name, rank=2, generator=generator, noun=concept.class_noun)
        settings["gate"] = kind
    scale = 0.1 if kind == "spectral" else 1.0
    weights = {
        name: (torch.randn(tensor.shape, generator=generator) * scale).to(tensor.dtype)
        for name, tensor in model.adapter.state().items()
    }
    record = doors.Adapter(
        method="l2dm", kind=model.adapter.kind, concepts=CONCEPTS, base=model.fingerprint,
        parent="", settings=settings,
    )  # fmt: skip
    return manifest.write(folder, record, lambda draft: attach.save(draft, weights, rows))
