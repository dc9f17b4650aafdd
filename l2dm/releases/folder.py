"""A release as a folder: the doors adapter/, memory/ and scores/ under one manifest."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from l2dm import doors
from l2dm.evaluation.matrix import no_scores
from l2dm.files import door_files, manifest
from l2dm.files.door_files import ADAPTER, MEMORY, SCORES
from l2dm.files.manifest import Door


@dataclass(frozen=True)
class Parts:
    """The three doors that make a release."""

    adapter: Door[doors.Adapter]
    memory: Door[doors.Memory]
    scores: Door[doors.Scores]

    def copy(self, draft: Path) -> None:
        """Into a release. Short-term memory stays behind: it is redrawn every task."""
        shutil.copytree(self.adapter.folder, draft / ADAPTER)
        shutil.copytree(self.scores.folder, draft / SCORES)
        manifest.write(
            draft / MEMORY,
            replace(self.memory.record, short_term=()),
            partial(door_files.copy_long_term, self.memory),
            spec=self.memory.spec,
            seed=self.memory.seed,
            inputs={"memory": self.memory.digest},
        )


def adapter_of(release: Path) -> Door[doors.Adapter]:
    """The adapter in a release folder."""
    return manifest.read(release / ADAPTER, doors.Adapter)


def memory_of(release: Path) -> Door[doors.Memory]:
    """The long-term memory in a release folder."""
    return manifest.read(release / MEMORY, doors.Memory)


def scores_of(release: Path) -> Door[doors.Scores]:
    """The scores in a release folder."""
    return manifest.read(release / SCORES, doors.Scores)


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
    """Copy the parts into a release."""
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

    inputs = {
        "parent": parent,
        "adapter": parts.adapter.digest,
        "memory": parts.memory.digest,
        "scores": parts.scores.digest,
    }
    return manifest.write(out, record, parts.copy, spec=spec, seed=task.seed, inputs=inputs)


def write_parts(
    out: Path,
    record: doors.Release,
    fill: Callable[[Path], None],
    *,
    spec: Mapping[str, Any],
    seed: int,
    parent: str,
) -> Door[doors.Release]:
    """A release whose three doors `fill` writes; the record is given their digests.

    parent: digest of the release that it was made from.
    """
    with TemporaryDirectory(prefix=f".{out.name}.parts-", dir=out.parent) as scratch:
        draft = Path(scratch)
        fill(draft)
        parts = Parts(adapter_of(draft), memory_of(draft), scores_of(draft))
        adapter, memory, scores = parts.adapter.digest, parts.memory.digest, parts.scores.digest
        named = replace(record, adapter=adapter, memory=memory, scores=scores)
        inputs = {"parent": parent, "adapter": adapter, "memory": memory, "scores": scores}

        def move(folder: Path) -> None:
            shutil.copytree(draft, folder, dirs_exist_ok=True)

        return manifest.write(out, named, move, spec=spec, seed=seed, inputs=inputs)


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
        manifest.write(draft / ADAPTER, adapter, lambda _: None)
        manifest.write(draft / MEMORY, bank, lambda inner: door_files.write_memory(inner, {}))
        manifest.write(
            draft / SCORES, scores, lambda inner: door_files.write_measurements(inner, ())
        )

    return manifest.write(out, record, fill)
