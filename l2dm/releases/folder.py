"""A release as a folder: the doors adapter/, memory/ and scores/ under one manifest."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from l2dm import doors
from l2dm.evaluation.matrix import no_scores
from l2dm.files import manifest
from l2dm.files.manifest import Door

LONG_TERM = "long_term.safetensors"
SHORT_TERM = "short_term.safetensors"


@dataclass(frozen=True)
class Parts:
    """The three doors that make a release."""

    adapter: Door[doors.Adapter]
    memory: Door[doors.Memory]
    scores: Door[doors.Scores]


def adapter_of(release: Path) -> Door[doors.Adapter]:
    """The adapter in a release folder."""
    return manifest.read(release / "adapter", doors.Adapter)


def memory_of(release: Path) -> Door[doors.Memory]:
    """The long-term memory in a release folder."""
    return manifest.read(release / "memory", doors.Memory)


def scores_of(release: Path) -> Door[doors.Scores]:
    """The scores in a release folder."""
    return manifest.read(release / "scores", doors.Scores)


def write(
    out: Path,
    parts: Parts,
    *,
    line: str,
    task: doors.Task,
    verdict: doors.Verdict,
    spec: Mapping[str, Any],
    parent: str,
) -> Door[doors.Release]:
    """Copy the parts into a release. Short-term memory stays behind: it is redrawn every task."""
    kept = replace(parts.memory.record, short_term=())
    record = doors.Release(
        line=line,
        task=task.id,
        concept=task.concept,
        parent_version=task.parent_version,
        adapter=parts.adapter.digest,
        memory=parts.memory.digest,
        scores=parts.scores.digest,
        verdict=verdict,
    )

    def fill(draft: Path) -> None:
        shutil.copytree(parts.adapter.folder, draft / "adapter")
        shutil.copytree(parts.scores.folder, draft / "scores")
        manifest.write(
            draft / "memory",
            kept,
            lambda inner: _copy(parts.memory.path(LONG_TERM), inner / LONG_TERM),
            spec=parts.memory.spec,
            seed=parts.memory.seed,
            inputs={"memory": parts.memory.digest},
        )

    inputs = {
        "parent": parent,
        "adapter": parts.adapter.digest,
        "memory": parts.memory.digest,
        "scores": parts.scores.digest,
    }
    return manifest.write(out, record, fill, spec=spec, seed=task.seed, inputs=inputs)


def write_empty(out: Path, line: str, base: str) -> Door[doors.Release]:
    """The release of a line that has learned nothing. base: the base model's fingerprint."""
    adapter = doors.Adapter(method="none", kind="none", concepts=(), base=base, parent="")
    bank = doors.Memory(base=base, long_term=())
    scores = no_scores(base)
    record = doors.Release(
        line=line,
        task="",
        concept=None,
        parent_version=0,
        adapter="",
        memory="",
        scores="",
        verdict=doors.Verdict(open=True, reasons=("the pretrained base, nothing learned yet",)),
    )

    def fill(draft: Path) -> None:
        manifest.write(draft / "adapter", adapter, lambda _: None)
        manifest.write(draft / "memory", bank, lambda inner: save_file({}, inner / LONG_TERM))
        manifest.write(draft / "scores", scores, lambda inner: _write_values(inner / "values.json"))

    return manifest.write(out, record, fill)


def _write_values(path: Path) -> None:
    path.write_text(json.dumps([]))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
