"""Scheduled checks on ten pocket concepts: quiet on healthy nights, and do they find the damage?

    python -m benchmarks.nights [--work .bench-nights] [--report]

A gated line learns ten concepts. Its release is checked on ten nights with fresh seeds; on ten
nights in half precision, which is another environment; and after one token row of ten was moved
towards its class noun's, by half and whole, signed as if it were right. Every check is the step
that the pipeline runs. Resumable: finished Check doors are kept. `--report` writes docs/nights.md
from those that are there, with the error rates of the statistics alone: every night's fresh scores
against every other's, as if nothing could be drawn again.
"""

import argparse
import contextlib
import itertools
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from benchmarks.core import Line, run
from l2dm import checking, doors, manifest, releases, steps
from l2dm.errors import BadDoor
from l2dm.metrics.regression import Bars, examine, overall
from l2dm.models import Model, load_base
from l2dm.pocket.world import NOUNS

log = logging.getLogger("bench")

NAMES = ("ada", "bolt", "cleo", "dora", "edna", "finn", "gus", "hana", "ivo", "juno")
CLASSES = ("dog", "car", "cat", "dog", "teapot", "cat", "car", "dog", "cat", "car")
TEN = Line(
    "gated-ten", 0, {"train": {"method": "gated"}}, stream=tuple(zip(NAMES, CLASSES, strict=True))
)
NIGHTS = range(10)
DAMAGE = (0.5, 1.0)  # share of the way from the concept's row to its class noun's
BARS = Bars()


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench-nights"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not options.report:
        run(TEN, options.work, options.base)
        _check_all(options.work, options.base)
    write(options.work, options.docs)


def _check_all(work: Path, base: str) -> None:
    release = work / TEN.name / f"t{len(NAMES):04d}" / "release"
    for night in NIGHTS:
        _check(work / f"healthy-{night}", release, base, night)
    for share, name in itertools.product(reversed(DAMAGE), NAMES):
        damaged = work / f"damaged-{share}-{name}"
        if not (damaged / "check").is_dir():
            damage(release, damaged / "release", base, name, share)
        _check(damaged, damaged / "release", base, 0)
    for night in NIGHTS:
        with half_precision():
            _check(work / f"half-{night}", release, base, night)


def _check(folder: Path, release: Path, base: str, night: int) -> None:
    out = folder / "check"
    with contextlib.suppress(BadDoor):
        manifest.read(out, doors.Check)
        return
    began = time.monotonic()
    context = steps.Context(base, "bench-0", "", len(NAMES), TEN.spec)
    found = steps.examine(release, out, context, seed=1_000_000 + 1000 * night).record
    seconds = time.monotonic() - began
    (folder / "seconds.json").write_text(json.dumps(seconds))
    log.info("%s: %s %s, %.0f s", folder.name, found.health, found.cause, seconds)


def damage(release: Path, out: Path, base: str, name: str, share: float) -> None:
    """A copy of a release in which one concept is on its way back to its class noun."""
    shutil.rmtree(out, ignore_errors=True)
    adapter = releases.adapter_of(release)
    concept = next(one for one in adapter.record.concepts if one.name == name)
    weights = load_file(adapter.path("adapter.safetensors"))
    rows = load_file(adapter.path("tokens.safetensors"))
    noun = load_base(base).noun_row(concept.class_noun)
    rows[name] = ((1 - share) * rows[name] + share * noun).contiguous()
    curve = adapter.path("curve.json").read_bytes()

    def fill(draft: Path) -> None:
        save_file(weights, draft / "adapter.safetensors")
        save_file(rows, draft / "tokens.safetensors")
        (draft / "curve.json").write_bytes(curve)

    door = manifest.read(release, doors.Release)

    def parts(draft: Path) -> None:
        shutil.copytree(release / "memory", draft / "memory")
        shutil.copytree(release / "scores", draft / "scores")
        manifest.write(draft / "adapter", adapter.record, fill)

    manifest.write(out, door.record, parts, spec=door.spec)


@contextlib.contextmanager
def half_precision() -> Iterator[None]:
    """The base's noise predictor in bfloat16, as on another machine; read back as float32."""
    loaded = checking.load_base

    def rounded(base: str) -> Model:
        model = loaded(base)
        with torch.no_grad():
            for weight in model.unet.parameters():
                weight.copy_(weight.to(torch.bfloat16).to(weight.dtype))
        return model

    with mock.patch.object(checking, "load_base", rounded):
        yield


def write(work: Path, docs: Path) -> None:
    """docs/nights.md from the doors that are there."""
    kinds = {
        "same environment, ten nights": [work / f"healthy-{night}" for night in NIGHTS],
        "weights rounded to bfloat16, ten nights": [work / f"half-{night}" for night in NIGHTS],
        **{
            f"one row of ten moved by {share:.0%} to its noun's": [
                work / f"damaged-{share}-{name}" for name in NAMES
            ]
            for share in DAMAGE
        },
    }
    lines = [
        "# Ten nights",
        "",
        "`python -m benchmarks.nights`: a gated line of ten pocket concepts, its release checked",
        f"with `examine`, the step of the pipeline `check_forgetting`; torch {torch.__version__}.",
        "Eight pictures a concept on the release's seeds, eight on fresh ones, eight of the bare",
        f"base. A drop of identity similarity counts from {BARS.margin} on, alpha {BARS.alpha}.",
        "",
        "| what was checked | checks | healthy | regressed | inconclusive | cause | named rightly "
        "| mean drop of the damaged concept | seconds a check |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for what, folders in kinds.items():
        lines.append(_row(what, folders))
    lines += ["", *_missed(work), "", *_statistics(work)]
    docs.mkdir(exist_ok=True)
    (docs / "nights.md").write_text("\n".join(lines) + "\n")


def _row(what: str, folders: Sequence[Path]) -> str:
    found = {folder: _read(folder) for folder in folders}
    known = {folder: check for folder, check in found.items() if check}
    if not known:
        return f"| {what} | not run | | | | | | | |"
    count = [one.health for one in known.values()].count
    causes = ", ".join(sorted({one.cause for one in known.values() if one.cause})) or "none"
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in known]
    drops, right = [], 0
    for folder, check in known.items():
        bad = folder.name.rpartition("-")[2]
        hit = [one for one in check.findings if one.concept == bad]
        drops += [one.drop for one in hit]
        right += {one.concept for one in check.findings if one.health == "regressed"} == {bad}
    named = f"{right} of {len(known)}" if drops else "—"
    drop = f"{sum(drops) / len(drops):.3f}" if drops else "—"
    cells = (
        what,
        len(known),
        *(count(health) for health in ("healthy", "regressed", "inconclusive")),
        causes,
        named,
        drop,
        f"{sum(seconds) / len(seconds):.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _missed(work: Path) -> list[str]:
    """What each damage that was not called a regression cost."""
    told, large, hits = [], 0, 0
    for share, name in itertools.product(DAMAGE, NAMES):
        check = _read(work / f"damaged-{share}-{name}")
        if not check:
            continue
        (one,) = (one for one in check.findings if one.concept == name)
        if one.drop >= BARS.margin:
            large += 1
            hits += one.health == "regressed"
        if one.health != "regressed":
            told.append(f"* {share:.0%} of {name}: {one.sentence}")
    summary = (
        f"Of {large} damages that cost {BARS.margin} or more, {hits} were called a regression. "
        "A row says little where the gated adapter carries the concept, or where it was hardly "
        "learned. Damage that was not called a regression:"
    )
    return [summary, "", *told] if told else []


def _statistics(work: Path) -> list[str]:
    """Error rates where nothing can be drawn again: nights, and damage, against nights."""
    nights = [scores for n in NIGHTS if (scores := _fresh(work / f"healthy-{n}"))]
    pairs = list(itertools.permutations(nights, 2))
    if not pairs:
        return []
    alarms = sum(overall(examine(old, new, BARS)) == "regressed" for old, new in pairs)
    lines = [
        "If nothing could be drawn on the same seeds, the fresh pictures alone would have to tell:",
        f"{len(pairs)} pairs of healthy nights, ten concepts each, raise {alarms} alarms.",
    ]
    for share in DAMAGE:
        hits = total = 0
        for name in NAMES:
            now = _fresh(work / f"damaged-{share}-{name}")
            for old in nights if now else ():
                findings = examine(old, now, BARS)
                hits += any(f.concept == name and f.health == "regressed" for f in findings)
                total += 1
        if total:
            lines.append(f"A row moved by {share:.0%} is found in {hits} of {total} such pairs.")
    return lines


def _fresh(folder: Path) -> Mapping[str, Sequence[float]]:
    if _read(folder) is None:
        return {}
    found: dict[str, list[float]] = {}
    for value in json.loads((folder / "check" / "values.json").read_text()):
        if value["row"] == checking.FRESH:
            found.setdefault(value["concept"], []).append(value["metrics"][checking.METRIC])
    return found


def _read(folder: Path) -> doors.Check | None:
    with contextlib.suppress(BadDoor):
        return manifest.read(folder / "check", doors.Check).record
    return None


if __name__ == "__main__":
    assert set(CLASSES) <= set(NOUNS)
    main()
