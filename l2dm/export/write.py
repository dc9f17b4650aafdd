"""A release as files that other tools read: plain diffusers, ComfyUI, A1111.

One textual inversion per concept, and the adapter in the form that its kind takes (`forms`). What
was written is read back with plain diffusers and compared before it appears (`verify`).
"""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from l2dm import __version__, doors
from l2dm.bases import folder as base_folder
from l2dm.bases.model import Model
from l2dm.errors import BadInput, DoesNotFit
from l2dm.export import readme, verify
from l2dm.export.forms import Form, FormWriter, write_json
from l2dm.files import door_files, manifest
from l2dm.files.full_disk import told_as_system
from l2dm.files.manifest import Door
from l2dm.releases import folder as releases
from l2dm.releases.load import load_adapter

RECORD = "export.json"
README = "README.md"


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
    model = load_adapter(adapter, base, device=torch.device("cpu"))
    _require_one_text_encoder(model)
    wanted = verify.reference(model, adapter.record.concepts)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(out)
    try:
        concepts = adapter.record.concepts
        writer = FormWriter(draft, door.record.line, model, concepts, _header_name(model))
        with told_as_system(out):
            _save_embeddings(draft / verify.EMBEDDINGS, door_files.read_rows(adapter))
            model.adapter.export(writer)
        _write_texts(draft, door, adapter, model, writer.form)
        written = verify.Written(draft, writer.form, door.record.line, adapter.record.concepts)
        folder = model.folder
        del model, writer  # two bases in memory at once are one too many on a small machine
        verify.verify(written, folder, wanted)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return tuple(sorted(path for path in out.rglob("*") if path.is_file()))


def _require_one_text_encoder(model: Model) -> None:
    if (count := len(model.networks.readers())) != 1:
        raise DoesNotFit(
            f"expected a base with one text encoder, found {count} in {model.name}: the export "
            "writes a placeholder's row for one; draw with `l2dm generate` instead"
        )


def _save_embeddings(folder: Path, rows: Mapping[str, Tensor]) -> None:
    """One textual inversion per concept: diffusers reads the key as the word, others the file."""
    folder.mkdir()
    for name, row in rows.items():
        save_file({f"<{name}>": row.float().contiguous()}, folder / f"{name}.safetensors")


def _write_texts(
    draft: Path,
    release: Door[doors.Release],
    adapter: Door[doors.Adapter],
    model: Model,
    form: Form,
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
    write_json(draft / RECORD, content)
    facts = readme.Facts(
        line=record.line,
        task=record.task,
        pipeline=model.family.pipeline,
        form=form,
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
    return model.folder.name if base_folder.source_of(model.name) == "folder" else model.name


def _header_name(model: Model) -> str:
    """The base in a file's header: a name that means it everywhere, else its fingerprint."""
    ours = base_folder.source_of(model.name) == "folder"
    return f"l2dm-base-{model.fingerprint}" if ours else model.name


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
