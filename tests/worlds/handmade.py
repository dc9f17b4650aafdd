"""Releases made by hand: two concepts, random weights that are not zero, nothing trained."""

from pathlib import Path

import torch

from l2dm import doors
from l2dm.bases import attach
from l2dm.bases.model import load_base
from l2dm.files import door_files, manifest
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
        lambda draft: door_files.write_memory(draft, {}),
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
    rows = {c.name: torch.randn(1, model.placeholders.width, generator=generator) for c in CONCEPTS}
    attach.add_rows(model, CONCEPTS, rows)
    of = kind if kind in ("lowrank", "spectral") else "gated"
    adapter = attach.attach_new(model, of, {"rank": 2, "gate": kind}, generator, CONCEPTS)
    scale = 0.1 if kind == "spectral" else 1.0
    weights = {
        name: (torch.randn(tensor.shape, generator=generator) * scale).to(tensor.dtype)
        for name, tensor in adapter.state().items()
    }
    record = doors.Adapter(
        method="l2dm", kind=adapter.kind, concepts=CONCEPTS, base=model.fingerprint,
        parent="", settings=adapter.settings,
    )  # fmt: skip
    return manifest.write(
        folder, record, lambda draft: door_files.write_adapter(draft, weights, rows)
    )
