"""Scheduled checks on ten pocket concepts: quiet when all is well, and do they find damage?

    python -m benchmarks.checks [--work .bench-checks] [--report]

A gated line learns ten concepts. Its release is checked ten times with fresh seeds; ten
times in half precision, which is another environment; and after one token row of ten was moved
towards its class noun's, by half and whole, signed as if it were right. Every check is the step
that the pipeline runs. Resumable: finished Check doors are kept. `--report` writes docs/checks.md
from the scores of the pictures in them, diagnosed anew: as they are, by fewer pictures, and as if
the bare base had moved, too, and every drawing had been another check's.
"""

import argparse
import contextlib
import itertools
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch

from benchmarks.core import Line, run
from l2dm import doors, steps
from l2dm.bases.model import Model, load_base
from l2dm.errors import BadDoor
from l2dm.files import door_files, manifest
from l2dm.metrics.health import Evidence, diagnose
from l2dm.metrics.paired_test import Bars
from l2dm.pocket.world.scenes import NOUNS
from l2dm.releases import check as release_check
from l2dm.releases import folder as releases
from l2dm.spec import EvaluateSpec

log = logging.getLogger("bench")

NAMES = ("ada", "bolt", "cleo", "dora", "edna", "finn", "gus", "hana", "ivo", "juno")
CLASSES = ("dog", "car", "cat", "dog", "teapot", "cat", "car", "dog", "cat", "car")
TEN = Line(
    "gated-ten", 0, {"train": {"method": "gated"}}, stream=tuple(zip(NAMES, CLASSES, strict=True))
)
TIMES = range(10)
DAMAGE = (0.5, 1.0)  # share of the way from the concept's row to its class noun's
BARS = Bars()
PICTURES = EvaluateSpec().pictures  # of a concept, in each drawing
MOVED = 1.0  # a control that says: another environment


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench-checks"))
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
    for number in TIMES:
        _check(work / f"healthy-{number}", release, base, number)
    for share, name in itertools.product(reversed(DAMAGE), NAMES):
        damaged = work / f"damaged-{share}-{name}"
        if not (damaged / "check").is_dir():
            damage(release, damaged / "release", base, name, share)
        _check(damaged, damaged / "release", base, 0)
    for number in TIMES:
        with half_precision():
            _check(work / f"half-{number}", release, base, number)


def _check(folder: Path, release: Path, base: str, number: int) -> None:
    out = folder / "check"
    with contextlib.suppress(BadDoor):
        manifest.read(out, doors.Check)
        return
    began = time.monotonic()
    context = steps.Context(base, "bench-0", "", len(NAMES), TEN.spec)
    found = steps.check(release, out, context, seed=1_000_000 + 1000 * number).record
    seconds = time.monotonic() - began
    (folder / "seconds.json").write_text(json.dumps(seconds))
    log.info("%s: %s %s, %.0f s", folder.name, found.health, found.cause, seconds)


def damage(release: Path, out: Path, base: str, name: str, share: float) -> None:
    """A copy of a release in which one concept is on its way back to its class noun."""
    shutil.rmtree(out, ignore_errors=True)
    adapter = releases.adapter_of(release)
    concept = next(one for one in adapter.record.concepts if one.name == name)
    weights, rows = door_files.read_weights(adapter), door_files.read_rows(adapter)
    state, curve = door_files.read_state(adapter), door_files.read_curve(adapter.folder)
    noun = load_base(base).noun_row(concept.class_noun).cpu()
    rows[name] = ((1 - share) * rows[name] + share * noun).contiguous()

    def fill(draft: Path) -> None:
        door_files.write_adapter(draft, weights, rows, state, curve)

    door = manifest.read(release, doors.Release)

    def parts(draft: Path) -> None:
        for part in (door_files.MEMORY, door_files.SCORES):
            shutil.copytree(release / part, draft / part)
        manifest.write(draft / door_files.ADAPTER, adapter.record, fill)

    manifest.write(out, door.record, parts, spec=door.spec)


@contextlib.contextmanager
def half_precision() -> Iterator[None]:
    """The base's noise predictor in bfloat16, as on another machine; read back as float32."""
    loaded = release_check.load_base

    def rounded(base: str) -> Model:
        model = loaded(base)
        with torch.no_grad():
            for weight in model.denoiser.parameters():
                weight.copy_(weight.to(torch.bfloat16).to(weight.dtype))
        return model

    with mock.patch.object(release_check, "load_base", rounded):
        yield


def write(work: Path, docs: Path) -> None:
    """docs/checks.md from the doors that are there."""
    kinds = {
        "same environment, ten times": [work / f"healthy-{number}" for number in TIMES],
        "weights rounded to bfloat16, ten times": [work / f"half-{number}" for number in TIMES],
        **{
            f"one row of ten moved by {share:.0%} to its noun's": [
                work / f"damaged-{share}-{name}" for name in NAMES
            ]
            for share in DAMAGE
        },
    }
    lines = [
        "# What scheduled checks find and miss",
        "",
        "`python -m benchmarks.checks`: a gated line of ten pocket concepts, its release checked",
        f"with `check`, the step of the pipeline `check_forgetting`; torch {torch.__version__}.",
        "Eight pictures a concept on the release's seeds, eight on fresh ones, eight of the bare",
        f"base. A drop of identity similarity counts from {BARS.margin} on, alpha {BARS.alpha}.",
        "Checks of one kind draw the same pictures on the release's seeds and differ in the fresh",
        "ones. What a damage cost: mean over the sixteen pictures of both kinds, against a healthy",
        "check's of the same seeds.",
        "",
        "| what was checked | checks | healthy | regressed | inconclusive | cause | named rightly "
        "| mean cost of the damage | seconds a check |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for what, folders in kinds.items():
        lines.append(_row(what, folders))
    lines += ["", *_missed(work), "", *_by_pictures(work), "", *_elsewhere(work)]
    docs.mkdir(exist_ok=True)
    (docs / "checks.md").write_text("\n".join(lines) + "\n")


def _row(what: str, folders: Sequence[Path]) -> str:
    found = {folder: _read(folder) for folder in folders}
    known = {folder: check for folder, check in found.items() if check}
    if not known:
        return f"| {what} | not run | | | | | | | |"
    count = [one.health for one in known.values()].count
    causes = ", ".join(sorted({one.cause for one in known.values() if one.cause})) or "none"
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in known]
    costs, right = [], 0
    for folder, check in known.items():
        bad = folder.name.rpartition("-")[2]
        costs += [_cost(folder, bad)] if bad in NAMES else []
        right += {one.concept for one in check.findings if one.health == "regressed"} == {bad}
    named = f"{right} of {len(known)}" if costs else "—"
    cost = f"{sum(costs) / len(costs):.3f}" if costs else "—"
    cells = (
        what,
        len(known),
        *(count(health) for health in ("healthy", "regressed", "inconclusive")),
        causes,
        named,
        cost,
        f"{sum(seconds) / len(seconds):.0f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _missed(work: Path) -> list[str]:
    """What each damage that was not called a regression cost."""
    told, large, hits = [], 0, 0
    for (share, name), cost in _costs(work).items():
        check = _read(work / f"damaged-{share}-{name}")
        assert check
        (one,) = (one for one in check.findings if one.concept == name)
        if cost >= BARS.margin:
            large += 1
            hits += one.health == "regressed"
        if one.health != "regressed":
            told.append(f"* {share:.0%} of {name}, which cost {cost:.3f}: {one.sentence}")
    summary = (
        f"Of {large} damages that cost {BARS.margin} or more, {hits} were called a regression. "
        "A row says little where the gated adapter carries the concept, or where it was hardly "
        "learned. Damage that was not called a regression:"
    )
    return [summary, "", *told] if told else []


def _costs(work: Path) -> dict[tuple[float, str], float]:
    """What every damage that was checked cost."""
    damages = {
        (share, name): work / f"damaged-{share}-{name}"
        for share, name in itertools.product(DAMAGE, NAMES)
    }
    return {which: _cost(at, which[1]) for which, at in damages.items() if _evidence(at)}


def _cost(folder: Path, name: str) -> float:
    """What a damage cost: mean over the pictures of both drawings, against the first check's."""
    well, ill = (_evidence(one)[name] for one in (folder.parent / "healthy-0", folder))
    return fmean((*well.again, *well.fresh)) - fmean((*ill.again, *ill.fresh))


def _by_pictures(work: Path) -> list[str]:
    """How many damages are found by fewer of their pictures."""
    costs = _costs(work)
    large = [which for which, cost in costs.items() if cost >= BARS.margin]
    small = [which for which in costs if which not in large]
    lines = [
        "A line of more than 15 concepts has fewer pictures of each at a release",
        "(`evaluate.budget`). The same damages by fewer of theirs, all in turn; in brackets as if",
        "the bare base had moved, too, so that chance may have had a say:",
        "",
        f"| pictures of a concept | concepts of a line | called a regression, of damages that cost "
        f"{BARS.margin} or more | of those that cost less |",
        "|---|---|---|---|",
    ]
    for count in (8, 4, 2, 1):
        cells = (_found_by(work, which, count) for which in (large, small))
        lines.append(f"| {count} | {EvaluateSpec().budget // count} | {' | '.join(cells)} |")
    return lines


def _found_by(work: Path, damages: Sequence[tuple[float, str]], count: int) -> str:
    total, found = 0, [0, 0]
    for share, name in damages:
        evidence = _evidence(work / f"damaged-{share}-{name}")
        for at in range(0, PICTURES, count):
            total += 1
            few = {who: _part(one, slice(at, at + count)) for who, one in evidence.items()}
            for index, control in enumerate((0.0, MOVED)):
                found[index] += name in _regressed(few, control)
    return f"{found[0]} of {total} ({found[1]})"


def _elsewhere(work: Path) -> list[str]:
    """Error rates where no picture can be drawn again: of healthy checks, and of damage."""
    healthy = [found for n in TIMES if (found := _evidence(work / f"healthy-{n}"))]
    triples = list(itertools.permutations(healthy, 3))
    if not triples:
        return []
    alarms = sum(bool(_regressed(_mixed(*three), MOVED)) for three in triples)
    lines = [
        "If the environment moved so far that the release's seeds gave other pictures altogether:",
        f"of {len(triples)} ways to take three healthy checks for release, same seeds and fresh",
        f"ones, {alarms} are called a regression ({alarms / len(triples):.1%}).",
    ]
    for share in DAMAGE:
        hits = total = 0
        for name in NAMES:
            now = _evidence(work / f"damaged-{share}-{name}")
            for old in healthy if now else ():
                changed = _mixed(old, {who: _swapped(one) for who, one in now.items()}, now)
                hits += name in _regressed(changed, MOVED)
                total += 1
        if total:
            lines.append(f"A row moved by {share:.0%} is found in {hits} of {total} such checks.")
    return lines


def _regressed(evidence: Mapping[str, Evidence], control: float) -> set[str]:
    found = diagnose(evidence, control, BARS).findings
    return {one.concept for one in found if one.health == "regressed"}


def _mixed(
    release: Mapping[str, Evidence], again: Mapping[str, Evidence], fresh: Mapping[str, Evidence]
) -> dict[str, Evidence]:
    """One check of three checks' fresh pictures."""
    return {who: Evidence(release[who].fresh, again[who].fresh, fresh[who].fresh) for who in fresh}


def _swapped(one: Evidence) -> Evidence:
    return Evidence(one.released, one.fresh, one.again)


def _part(one: Evidence, part: slice) -> Evidence:
    return Evidence(one.released[part], one.again[part], one.fresh[part])


@cache
def _evidence(folder: Path) -> dict[str, Evidence]:
    """The scores of a check's pictures and of its release's; empty where it was not run."""
    try:
        door = manifest.read(folder / "check", doors.Check)
    except BadDoor:
        return {}
    scores = releases.scores_of(folder.parent / TEN.name / f"t{len(NAMES):04d}" / "release")
    measured = [*door_files.read_measurements(scores), *door_files.read_measurements(door)]
    drawn: dict[tuple[str, str], list[float]] = {}
    for one in measured:
        if one.concept is not None:
            drawn.setdefault((one.row, one.concept), []).append(one.metrics[release_check.METRIC])
    rows = (door.record.row, release_check.AGAIN, release_check.FRESH)
    names = [one.concept for one in door.record.findings]
    return {name: Evidence(*(drawn[row, name] for row in rows)) for name in names}


def _read(folder: Path) -> doors.Check | None:
    """A kept check, diagnosed anew from what it drew."""
    evidence = _evidence(folder)
    if not evidence:
        return None
    record = manifest.read(folder / "check", doors.Check).record
    return replace(record, **vars(diagnose(evidence, record.control, BARS)))


if __name__ == "__main__":
    assert set(CLASSES) <= set(NOUNS)
    main()
