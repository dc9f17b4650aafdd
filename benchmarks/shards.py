"""Seconds of `evaluate` on a line of K concepts: one process, or two shards and a gathering step.

    python -m benchmarks.shards --concepts 10 40

Nothing is learned: the adapter's rows are those of the class nouns and the features are random,
because only the time to draw and measure is asked for. Every part runs in a process of its own, as
in the pipeline, and its time holds the start of that process. CPU seconds depend little on who
else uses the machine, seconds on the wall a lot.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import normalize

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import attach
from l2dm.bases.encoders import Encoders, load_encoders
from l2dm.bases.model import Model, load_base
from l2dm.evaluation.measure import METRICS
from l2dm.files import door_files, manifest
from l2dm.files.door_files import Features
from l2dm.releases import folder as releases
from l2dm.replay import class_pictures

Known = tuple[doors.Concept, ...]
NOUNS, RANK = ("dog", "cat"), 4
STEP = ("task", "parent", "prior", "memory", "adapter")
SHARD = ("task", "parent", "prior", "adapter")


def main() -> None:
    """Measure and print a table in Markdown."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--concepts", type=int, nargs="+", default=[10, 40])
    options.add_argument("--base", default="pocket")
    options.add_argument("--set", nargs="*", default=[], dest="settings")
    options.add_argument("--part", nargs=2, metavar=("FOLDER", "SHARD"))
    chosen = options.parse_args()
    if chosen.part:
        _work(Path(chosen.part[0]), chosen.part[1])
        return
    print("| concepts | one process: wall, CPU | two shards: wall, CPU | CPU to start one |")
    print("|---|---|---|---|")
    for count in chosen.concepts:
        folder = Path(tempfile.mkdtemp(prefix="l2dm-shards-"))
        try:
            _prepare(folder, count, chosen.base, chosen.settings)
            _, start = _run(folder, ("start",))
            whole = _run(folder, ("whole",))
            drawn = _run(folder, ("1/2", "2/2"))
            gathered = _run(folder, ("gather",))
            _require_equal(folder)
        finally:
            shutil.rmtree(folder)
        wall, cpu = (one + other for one, other in zip(drawn, gathered, strict=True))
        shared = f"{drawn[0]:.0f} + {gathered[0]:.0f} = {wall:.0f} s, {cpu:.0f} s"
        alone = f"{whole[0]:.0f} s, {whole[1]:.0f} s"
        print(f"| {count} | {alone} | {shared} | {start:.0f} s |", flush=True)


def _run(folder: Path, names: tuple[str, ...]) -> tuple[float, float]:
    """Parts at the same time: seconds on the wall, and of the CPU in all."""
    began, before = time.monotonic(), _cpu()
    command = [sys.executable, "-m", "benchmarks.shards", "--part", str(folder)]
    running = [subprocess.Popen([*command, name]) for name in names]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a part failed")
    return time.monotonic() - began, _cpu() - before


def _work(folder: Path, name: str) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    spec, base = specs.parse(facts["spec"]), facts["base"]
    context = steps.Context(base, "bench", facts["task"], 1, spec)
    if name == "start":
        load_encoders(base)
        attach.attach_door(load_base(base), manifest.read(folder / "adapter", doors.Adapter))
    elif name in ("whole", "gather"):
        drawn = sorted(folder.glob("drawn-*")) if name == "gather" else []
        given = [folder / door for door in STEP]
        steps.evaluate(*given, folder / name, context, drawn=drawn)
    else:
        given = [folder / door for door in SHARD]
        steps.draw_evaluation(*given, folder / f"drawn-{name[0]}", context, shard=name)


def _cpu() -> float:
    """Of the processes that this one waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _require_equal(folder: Path) -> None:
    one, other = (manifest.read(folder / name, doors.Scores) for name in ("whole", "gather"))
    if one.digest != other.digest:
        raise SystemExit("the scores from shards are not those of one process")


def _prepare(folder: Path, count: int, base: str, settings: list[str]) -> None:
    """Doors of the K-th task of a line that knows K - 1 concepts."""
    spec, task = specs.override(specs.Spec(), settings), f"t{count:04d}"
    model = load_base(base)
    known = tuple(doors.Concept(f"c{i:03d}", NOUNS[i % 2]) for i in range(count))
    facts = {"base": base, "task": task, "spec": specs.to_dict(spec)}
    (folder / "facts.json").write_text(json.dumps(facts))
    _write_prior(folder / "prior", model, spec)
    _write_memory(folder / "memory", model, load_encoders(base), known)
    _write_adapter(folder / "adapter", model, known)
    parent = releases.write_empty(folder / "parent", "bench", model.fingerprint)
    _write_scores(folder / "parent" / "scores", model.fingerprint, known[:-1])
    names, prompts = door_files.picture_names(1), ("a",)
    record = doors.Task(
        task, "bench", known[-1], names, prompts, parent.digest, 1, model.fingerprint, 0
    )
    blank = _blank(model)
    manifest.write(folder / "task", record, lambda at: door_files.write_pictures(at, blank))


def _write_prior(folder: Path, model: Model, spec: specs.Spec) -> None:
    count = spec.prior.count
    drawn = {
        noun: class_pictures.generate(model, noun, count, spec.sampling, seed=0) for noun in NOUNS
    }
    captions = {noun: class_pictures.captions(noun, count) for noun in drawn}
    record = doors.Prior(model.fingerprint, NOUNS, captions, class_pictures.seeds(0, count))
    manifest.write(folder, record, lambda draft: door_files.write_class_pictures(draft, drawn))


def _write_memory(folder: Path, model: Model, encoders: Encoders, known: Known) -> None:
    blank, generator = _blank(model), torch.Generator().manual_seed(0)
    widths = (encoders.image(blank).shape[1], encoders.identity(blank).shape[1])

    def random(width: int) -> torch.Tensor:
        return normalize(torch.randn(4, width, generator=generator), dim=1)

    features = {one.name: Features(*map(random, widths)) for one in known}
    record = doors.Memory(
        model.fingerprint, tuple(doors.Remembered(one, ("a",) * 4) for one in known)
    )
    manifest.write(folder, record, lambda draft: door_files.write_memory(draft, features))


def _write_adapter(folder: Path, model: Model, known: Known) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = attach.attach_new(model, "lowrank", {"rank": RANK}, generator).state()
    rows = {one.name: model.noun_row(one.class_noun).reshape(1, -1) for one in known}
    record = doors.Adapter("l2dm", "lowrank", known, model.fingerprint, "", {"rank": RANK})
    manifest.write(folder, record, lambda draft: door_files.write_adapter(draft, weights, rows))


def _write_scores(folder: Path, mark: str, known: Known) -> None:
    count = len(known)
    rows = ("base", *(f"t{number + 1:04d}" for number in range(count)))
    learned = (count, *range(1, count + 1))  # concepts that each row was measured on
    matrix = tuple((0.5,) * some + (None,) * (count - some) for some in learned)
    record = doors.Scores(mark, rows, known, dict.fromkeys(METRICS, matrix), (), {})
    manifest.write(folder, record, lambda draft: door_files.write_measurements(draft, ()))


def _blank(model: Model) -> torch.Tensor:
    return torch.zeros(1, 3, model.resolution, model.resolution, dtype=torch.uint8)


if __name__ == "__main__":
    main()
