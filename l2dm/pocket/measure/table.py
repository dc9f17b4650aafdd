"""The quality table: every measurement against its bar, written into docs/pocket.md."""

import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from l2dm.metrics.drift import kid
from l2dm.pocket.judge.judge import judge, load_judge
from l2dm.pocket.measure import rates as m
from l2dm.pocket.measure.probe import teach, training_pace
from l2dm.pocket.train.loop import seconds_spent
from l2dm.pocket.world.batches import to_unit
from l2dm.pocket.world.render_cache import Renders
from l2dm.pocket.world.scenes import NOUNS, TUNING_SEEDS, distractors, identity, photos, pixels

log = logging.getLogger(__name__)

BEGIN, END = "<!-- measured by python -m l2dm.pocket.make -->", "<!-- end of measured -->"
PAIRS, SINGLES_EACH = 256, 2  # two-thing prompts; pictures of every colour–noun pair
LESSONS, LESSON_STEPS, LESSON_PICTURES = 8, 250, 8  # identities taught alone, and their pictures
SCENES = 256  # held-out scenes drawn again from their captions, for the KID
SHEET = (
    "a photo of a red dog",
    "a blue car on a road",
    "a green and white striped cat on sand",
    "a photo of a purple spotted teapot on a wood floor",
    "a photo of a yellow star and a blue house",
    "a red boat at sea",
    "a pink robot at night",
    "a photo of a black cat and an orange flower on grass",
)
SHEET_COLUMNS = 6


@dataclass(frozen=True)
class Row:
    """One line of the table; `met` is None where the bar asks for a report only."""

    what: str
    bar: str
    measured: str
    met: bool | None


def write_table(weights: Path, held_out: Renders, work: Path, docs: Path) -> None:
    """Measure everything, write the table into docs/pocket.md and the sheet beside it."""
    rows: list[Row] = []
    parts: list[Callable[[], list[Row]]] = [
        lambda: encoder_rows(weights, held_out),
        lambda: drawing_rows(weights),
        lambda: [kid_row(weights, held_out)],
        lambda: lesson_rows(weights),
    ]
    for part in parts:
        for row in part():
            log.info("measure: %s: %s (%s)", row.what, row.measured, row.bar)
            rows.append(row)
    docs.mkdir(parents=True, exist_ok=True)
    sample_sheet(weights).save(docs / "pocket-samples.png", optimize=True)
    _between_markers(
        docs / "pocket.md", "\n".join([_machine(), "", *_table(rows), "", *_stages(work)])
    )


def encoder_rows(weights: Path, held_out: Renders) -> list[Row]:
    """Autoencoder, judge, identity encoder and retrieval."""
    vae = AutoencoderKL.from_pretrained(weights / "vae").eval()
    error = m.vae_error(vae, to_unit(torch.from_numpy(np.array(held_out.pictures[:1_000]))))
    noun, count, colour = m.judge_rates(load_judge(weights / "judge"), held_out)
    who = m.identity_rate(weights / "identity")
    found = m.retrieval_rate(weights, held_out)
    return [
        Row(
            "VAE, held-out renders, mean absolute error",
            "≤ 4.0 of 255",
            f"{error:.2f}",
            error <= 4.0,
        ),
        Row(
            "judge on held-out renders",
            "noun ≥ 99 %, count ≥ 99 %, colour ≥ 97 %",
            f"noun {noun:.1%}, count {count:.1%}, colour {colour:.1%}",
            noun >= 0.99 and count >= 0.99 and colour >= 0.97,
        ),
        Row(
            "identity encoder, right one of 110 from one held-out photo",
            "≥ 95 %",
            f"{who:.1%}",
            who >= 0.95,
        ),
        Row("caption to picture among 100 scenes", "≥ 90 %", f"{found:.1%}", found >= 0.90),
    ]


def drawing_rows(weights: Path) -> list[Row]:
    """What the base draws, and how fast."""
    pipeline, judge_model = m.load_pipeline(weights), load_judge(weights / "judge")
    steps, guidance = _recommended(weights)
    singles = m.single_prompts() * SINGLES_EACH
    drawn = m.paint(pipeline, [prompt for prompt, _, _ in singles], steps, guidance)
    noun, colour = m.single_rates(judge(judge_model, drawn), singles)
    pairs = m.pair_prompts(PAIRS)
    drawn = m.paint(pipeline, [prompt for prompt, _, _ in pairs], steps, guidance)
    both, bound = m.pair_rates(judge(judge_model, drawn), pairs)
    start = time.monotonic()
    m.paint(pipeline, [prompt for prompt, _, _ in singles[:64]], steps, guidance)
    seconds = time.monotonic() - start
    return [
        Row(
            f'base, "a photo of a COLOUR NOUN", {len(singles)} pictures over all pairs',
            "noun ≥ 95 %, colour ≥ 95 %",
            f"noun {noun:.1%}, colour {colour:.1%}",
            noun >= 0.95 and colour >= 0.95,
        ),
        Row(
            f"base, two things with colours, {PAIRS} pictures",
            "both nouns ≥ 65 %, both bound ≥ 55 %",
            f"both nouns {both:.1%}, both bound {bound:.1%}",
            both >= 0.65 and bound >= 0.55,
        ),
        Row(
            f"64 pictures with guidance, {steps} steps", "≤ 20 s", f"{seconds:.1f} s", seconds <= 20
        ),
    ]


def kid_row(weights: Path, held_out: Renders) -> Row:
    """How far drawn scenes are from rendered ones, as distributions of CLIP image features.

    The first `SCENES` held-out scenes are drawn from their full captions and compared with the
    next 1,000 renders; renders against renders are the floor.
    """
    captions = [row[0] for row in held_out.captions[:SCENES]]
    steps, guidance = _recommended(weights)
    drawn = m.paint(m.load_pipeline(weights), captions, steps, guidance)
    own = to_unit(torch.from_numpy(np.array(held_out.pictures[:SCENES])))
    others = to_unit(torch.from_numpy(np.array(held_out.pictures[SCENES : SCENES + 1_000])))
    features = [m.image_features(weights, one) for one in (drawn, own, others)]
    far, floor = (kid(one, features[2]) for one in features[:2])
    assert far is not None and floor is not None  # hundreds of rows each
    text = f"{far * 1000:.1f} (renders against renders {floor * 1000:.1f})"
    return Row(
        f"KID · 1000 of {SCENES} scenes against renders, CLIP features", "report", text, None
    )


def lesson_rows(weights: Path) -> list[Row]:
    """One identity at a time, learned alone by the probe, judged by the identity encoder."""
    judge_free = [lesson_rate(weights, number) for number in range(LESSONS)]
    rate = float(np.mean(judge_free))
    pace = training_pace(m.load_pipeline(weights), photos(identity(TUNING_SEEDS[900], "dog"), 5, 0))
    return [
        Row(
            f"one identity learned alone, {LESSON_STEPS} K/V LoRA steps, nearest of 101",
            "mean ≥ 90 %, none under 60 %",
            f"{rate:.1%} (mean of {LESSONS}: {', '.join(f'{value:.0%}' for value in judge_free)})",
            rate >= 0.90 and min(judge_free) >= 0.60,
        ),
        Row("200 training steps at batch 8", "≤ 40 s", f"{pace:.1f} s", pace <= 40),
    ]


def lesson_rate(weights: Path, number: int) -> float:
    """Share of a taught pipeline's pictures whose nearest identity is the taught one."""
    subject = identity(TUNING_SEEDS[1_000 + number], NOUNS[(number * 5) % len(NOUNS)])
    pipeline = m.load_pipeline(weights)
    teach(pipeline, photos(subject, 5, 0), "<subject>", subject.noun, LESSON_STEPS)
    prompts = [f"a photo of a <subject> {subject.noun}"] * LESSON_PICTURES
    drawn = m.paint(pipeline, prompts, *_recommended(weights))
    everyone = [subject, *distractors(100)]
    known = np.concatenate([pixels(photos(one, m.REFERENCES, 1)) for one in everyone])
    gallery = m.identity_features(weights / "identity", to_unit(torch.from_numpy(known)))
    centres = torch.nn.functional.normalize(
        gallery.view(len(everyone), m.REFERENCES, -1).mean(1), dim=-1
    )
    nearest = (m.identity_features(weights / "identity", drawn) @ centres.T).argmax(-1)
    return float((nearest == 0).float().mean())


def sample_sheet(weights: Path) -> Image.Image:
    """A row of pictures for each prompt of SHEET, fixed seeds."""
    prompts = [prompt for prompt in SHEET for _ in range(SHEET_COLUMNS)]
    drawn = m.paint(m.load_pipeline(weights), prompts, *_recommended(weights))
    sheet = Image.new("RGB", (66 * SHEET_COLUMNS, 66 * len(SHEET)), "white")
    for i, picture in enumerate(
        ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    ):
        sheet.paste(
            Image.fromarray(picture), (66 * (i % SHEET_COLUMNS) + 1, 66 * (i // SHEET_COLUMNS) + 1)
        )
    return sheet


def _recommended(weights: Path) -> tuple[int, float]:
    """Steps and guidance that the base asks to be sampled with."""
    content = json.loads((weights / "sampling.json").read_text(encoding="utf-8"))
    return int(content["steps"]), float(content["guidance"])


def _table(rows: list[Row]) -> list[str]:
    marks = {True: "yes", False: "**no**", None: "–"}
    lines = [f"| {row.what} | {row.bar} | {row.measured} | {marks[row.met]} |" for row in rows]
    return ["| what | bar | measured | met |", "|---|---|---|---|", *lines]


def _machine() -> str:
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "peft")
    )
    cpu = (
        next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            platform.processor(),
        )
        if Path("/proc/cpuinfo").exists()
        else platform.processor()
    )
    return (
        f"Measured on {os.cpu_count()} cores ({cpu}), {libraries}, by `python -m l2dm.pocket.make`."
    )


def _stages(work: Path) -> list[str]:
    names = [
        name
        for name in ("vae", "decoder", "clip", "identity", "judge", "unet", "unet-more")
        if (work / f"{name}.ckpt").exists()
    ]
    times = ", ".join(f"{name} {seconds_spent(name, work) / 60:.0f} min" for name in names)
    return [f"Training took: {times} (on cores shared with other work)."]


def _between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers, or append them."""
    page = (
        path.read_text(encoding="utf-8")
        if path.exists()
        else "# The pocket world and its base model\n"
    )
    if BEGIN not in page:
        page = f"{page.rstrip()}\n\n{BEGIN}\n{END}\n"
    head, rest = page.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
