"""docs/results.md: the table of the core bench, with intervals, from finished doors alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.core import NAMES, NOUNS, VARIANTS, Line, line_of, scores_of
from l2dm import spec as specs
from l2dm.doors import Scores
from l2dm.files import door_files, images
from l2dm.files.manifest import Door
from l2dm.metrics import forgetting
from l2dm.metrics.bootstrap import Interval, hierarchical_interval

METRIC = "identity_similarity"
GAIN = forgetting.MIN_GAIN
SEEDS = range(10)


@dataclass(frozen=True)
class Found:
    """What one variant did, over its finished seeds."""

    variant: str
    lines: tuple[Line, ...]
    scores: tuple[Door[Scores], ...]
    seconds: Mapping[str, float]
    bytes_per_concept: float


def write(work: Path, docs: Path, base: str) -> None:
    """Write results.md and the picture sheets beside it."""
    found = [one for variant in VARIANTS if (one := _found(variant, work))]
    if not found:
        raise SystemExit("no finished line yet; run `make bench-core` first")
    docs.mkdir(exist_ok=True)
    pictures = [
        _sheet(one, docs) for one in found if one.variant in ("sequential", "l2dm", "gated")
    ]
    parts = [*_head(base, found), *_table(found), *_shared(found, work), *_costs(found)]
    text = "\n".join([*parts, *_shown(pictures)])
    (docs / "results.md").write_text(text + "\n")


def _found(variant: str, work: Path, seeds: Sequence[int] = SEEDS) -> Found | None:
    lines = tuple(line_of(variant, seed) for seed in seeds)
    finished = [(line, scores) for line in lines if (scores := scores_of(line, work))]
    if not finished:
        return None
    seconds: dict[str, list[float]] = {}
    sizes = []
    for line, _ in finished:
        for path in sorted((work / line.name).glob("t*/seconds.json")):
            for step, value in json.loads(path.read_text()).items():
                seconds.setdefault(step, []).append(value)
        adapter = work / line.name / f"t{len(NAMES):04d}" / "adapter"
        files = [*adapter.glob("*.safetensors")]
        sizes.append(sum(path.stat().st_size for path in files) / len(NAMES))
    return Found(
        variant,
        tuple(line for line, _ in finished),
        tuple(scores for _, scores in finished),
        {step: fmean(values) for step, values in seconds.items()},
        fmean(sizes),
    )


def _head(base: str, found: Sequence[Found]) -> list[str]:
    stream = ", ".join(f"{name} ({noun})" for name, noun in zip(NAMES, NOUNS, strict=True))
    made = next((one for one in found if one.variant == "l2dm"), found[0])
    spec = specs.parse(made.scores[0].spec)  # what was run, not what is the default today
    train = spec.train
    return [
        "# Results",
        "",
        f"Five concepts of the pocket world in a row: {stream};",
        "five pictures each, identities from the test range. `make bench-core` reruns what is on",
        "this page; a line goes on from every release, whatever its gate said.",
        f"torch {torch.__version__}, base `{base}`, {train.steps} steps of batch {train.batch};",
        _weights(spec),
        "identities ([sweep.md](sweep.md)). That sweep was made because a first run of this bench,",
        "at 1, 0.5 and 10, learned 13 % less than sequential: these identities were seen twice.",
        "",
        "Similarities are cosines of the identity encoder to the uploaded pictures. *Lost of what",
        "was gained*: what past concepts lost until the end as a share of what they had risen",
        "above the base, 0 = kept, 1 = back to the base model, a ratio of sums over concepts and",
        "seeds. *Relative forgetting*: the same as a mean over concepts, seed by seed; a concept",
        f"that rose by less than {GAIN} was not learned and does not count, one that rose by",
        "little more can outweigh all others. *Drift*: how far class prompts moved from the base",
        "on the same seeds, 1 - cosine of CLIP features. Brackets hold 95 % bootstrap intervals",
        "(concepts, then",
        "pictures).",
        "",
    ]


def _weights(spec: specs.Spec) -> str:
    if spec.train.method != "l2dm":
        return "l2dm was not run, its weights were chosen on other"
    own = specs.options_of(spec)
    return f"l2dm at alpha {own.replay}, beta {own.prior}, gamma {own.distill}, chosen on other"


def _table(found: Sequence[Found]) -> list[str]:
    rows = [
        "| variant | seeds | learned identity | identity at the end | identity accuracy, learned / "
        "end | lost of what was gained | relative forgetting (each seed) | forgetting "
        "| prior drift at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        columns = [
            one.variant,
            str(len(one.lines)),
            _shown_interval(_cells(one, "learned")),
            _shown_interval(_cells(one, "end")),
            f"{_mean(one, 'identity_accuracy', 'learned'):.2f} / "
            f"{_mean(one, 'identity_accuracy', 'end'):.2f}",
            _pooled(one),
            _relative(one),
            _shown_interval(_dropped(one)),
            _shown_interval(_drift(one), 4),
        ]
        rows.append("| " + " | ".join(columns) + " |")
    return [*rows, ""]


def _shared(found: Sequence[Found], work: Path) -> list[str]:
    """The table again on the seeds that every row has, where rows have different ones."""
    seeds = [{line.seed for line in one.lines} for one in found]
    shared = sorted(set.intersection(*seeds))
    if not shared or all(len(one) == len(shared) for one in seeds):
        return []
    same = [part for one in found if (part := _found(one.variant, work, shared))]
    named = ", ".join(str(seed) for seed in shared)
    return [
        "Rows of different seeds are not comparable. All of them on the same identities, seed "
        f"{named} alone:",
        "",
        *_table(same),
    ]


def _costs(found: Sequence[Found]) -> list[str]:
    steps = ("score_memory", "train", "evaluate")
    rows = [
        "## Cost of a task",
        "",
        "| variant | " + " | ".join(f"{step}, s" for step in steps) + " | bytes per concept |",
        "|---|" + "---|" * (len(steps) + 1),
    ]
    for one in found:
        cells = [f"{one.seconds.get(step, float('nan')):.0f}" for step in steps]
        rows.append(f"| {one.variant} | {' | '.join(cells)} | {one.bytes_per_concept:,.0f} |")
    drawn = max(one.seconds.get("generate_prior", 0.0) for one in found)
    return [
        *rows,
        "",
        "Means over tasks, one line to a core, beside other work where there was any. Class",
        f"pictures cost {drawn:.0f} s a task on top",
        "until they are cached per base and noun. Bytes are those of the adapter and token rows,",
        "divided by the concepts: a shared adapter does not grow. A `gated` concept on an",
        f"SD-1.5-sized UNet takes {sd15_bytes(8):,} bytes at rank 8, {sd15_bytes(4):,} at rank 4",
        "(fp16, counted on that architecture; keys and values of its cross-attention).",
        "",
    ]


def sd15_bytes(rank: int) -> int:
    """Bytes of one gated concept on Stable Diffusion 1.5's UNet, counted without its weights."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
    linear = [
        getattr(module, name)
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False)
        for name in ("to_k", "to_v")
    ]
    return sum(2 * rank * (layer.in_features + layer.out_features) for layer in linear)


def _shown(pictures: Sequence[tuple[str, str]]) -> list[str]:
    lines = ["## What they draw", ""]
    lines.append(
        "One block per concept: the real pictures, what the base draws of the class noun, then "
        "what the model draws after each task from the one that taught it, same prompts and "
        f"seeds; seed {SEEDS[0]}."
    )
    for variant, name in pictures:
        lines += ["", f"**{variant}**", "", f"![{variant}]({name})"]
    return lines


def _cells(one: Found, when: str) -> list[list[float]]:
    """Per-picture values of METRIC, one list per concept and seed."""
    groups = []
    for scores in one.scores:
        cells = forgetting.by_cell(door_files.read_measurements(scores), METRIC)
        rows = scores.record.rows
        for index, concept in enumerate(scores.record.concepts):
            row = rows[index + 1] if when == "learned" else rows[-1]
            groups.append(list(cells[row, concept.name].values()))
    return groups


def _dropped(one: Found) -> list[list[float]]:
    """Per-picture drops from the row that taught a concept to the last row, past concepts only."""
    groups = []
    for scores in one.scores:
        cells = forgetting.by_cell(door_files.read_measurements(scores), METRIC)
        rows = scores.record.rows
        for index, concept in enumerate(scores.record.concepts[:-1]):
            before, after = cells[rows[index + 1], concept.name], cells[rows[-1], concept.name]
            groups.append([before[key] - after[key] for key in before if key in after])
    return groups


def _drift(one: Found) -> list[list[float]]:
    groups = []
    for scores in one.scores:
        last = scores.record.rows[-1]
        found = [
            one for one in door_files.read_measurements(scores) if one.row == last and one.noun
        ]
        for noun in dict.fromkeys(one.noun for one in found):
            groups.append([one.metrics["distance"] for one in found if one.noun == noun])
    return groups


def _pooled(one: Found) -> str:
    value = forgetting.pooled_relative_forgetting([s.record.matrices[METRIC] for s in one.scores])
    return "nothing was gained" if value is None else f"{value:.2f}"


def _relative(one: Found) -> str:
    found = [forgetting.relative_forgetting(s.record.matrices[METRIC]) for s in one.scores]
    known = [value for value in found if value is not None]
    if not known:
        return "nothing was learned"
    each = ", ".join(f"{value:.2f}" for value in known)
    return f"{fmean(known):.2f} ({each})"


def _mean(one: Found, metric: str, when: str) -> float:
    values = []
    for scores in one.scores:
        matrix = scores.record.matrices[metric]
        for index in range(len(scores.record.concepts)):
            value = matrix[index + 1 if when == "learned" else -1][index]
            values.append(float("nan") if value is None else value)
    return fmean(values)


def _shown_interval(groups: list[list[float]], digits: int = 3) -> str:
    interval: Interval = hierarchical_interval(
        groups, generator=torch.Generator().manual_seed(0), resamples=2000
    )
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _sheet(one: Found, docs: Path) -> tuple[str, str]:
    """The strips of every concept after every task, stacked."""
    scores = one.scores[0]
    strips = []
    for index, concept in enumerate(scores.record.concepts):
        rows = ["base", *scores.record.rows[index + 1 :]]
        sheets = [door_files.real_sheet(concept.name)]
        sheets += [door_files.concept_sheet(row, concept.name) for row in rows]
        strips += [scores.path(sheet) for sheet in sheets]
    pictures = [images.load_png(path) for path in strips if path.is_file()]
    width = max(picture.shape[-1] for picture in pictures)
    padded = [
        torch.nn.functional.pad(picture, (0, width - picture.shape[-1]), value=255)
        for picture in pictures
    ]
    name = f"results-{one.variant}.png"
    images.save_png(torch.cat(padded, dim=1), docs / name)
    return one.variant, name
