"""A line's history as doors, written without a model: pictures and numbers are made up."""

import torch
from safetensors.torch import save_file

from l2dm import spec
from l2dm.doors import Adapter, Concept, Drift, Measurement, Memory, Release, Scores, Verdict
from l2dm.evaluation import sheets
from l2dm.files import door_files, manifest
from l2dm.reporting.report import ReportEntry

METRICS = ("image_alignment", "text_alignment", "identity_similarity", "identity_accuracy")
PICTURES = 4


def line(folder, concepts, *, fade=0.0, paint=None, reasons=("It is fine.",), held=()):
    """One entry a task. A concept is learned at 0.8 and loses `fade` at every later task.

    paint(what, row number) -> (n, 3, h, w) uint8; what is "real", a Concept or a noun.
    held: numbers of tasks whose gate stayed closed.
    """
    paint = paint or _grey
    entries = []
    champion = 0
    for task in range(1, len(concepts) + 1):
        known = tuple(concepts[:task])
        is_open = task not in held
        release = _release(folder, known, fade, paint, Verdict(is_open, tuple(reasons)), champion)
        if is_open:
            champion = task
        entries.append((task, release))
    newest = len(concepts)
    return [
        ReportEntry(
            version,
            release,
            tuple(
                alias
                for alias, at in (("champion", champion), ("challenger", newest))
                if at == version and (alias == "champion" or newest in held)
            ),
        )
        for version, release in entries
    ]


def scores(folder, known, fade, paint):
    rows = ("base", *(f"t{number:04d}" for number in range(1, len(known) + 1)))
    nouns = tuple(dict.fromkeys(one.class_noun for one in known))
    cells = {
        (at, column): [_measured(row, at, concept, number, fade) for number in range(PICTURES)]
        for at, row in enumerate(rows)
        for column, concept in enumerate(known)
        if at == 0 or at > column
    }
    measured = [one for cell in cells.values() for one in cell]
    record = Scores(
        base="0123456789abcdef",
        rows=rows,
        concepts=known,
        matrices={
            metric: tuple(
                tuple(
                    _mean(cells[at, column], metric) if (at, column) in cells else None
                    for column in range(len(known))
                )
                for at in range(len(rows))
            )
            for metric in METRICS
        },
        drift=tuple(
            Drift(row, noun, round(fade * at / 2, 6), fade * at * 10)
            for at, row in enumerate(rows)
            if at
            for noun in nouns
        ),
        ceilings={"identity_similarity": (0.9,) * len(known)},
    )

    def fill(draft):
        door_files.write_measurements(draft, measured)
        pictures = {door_files.real_sheet(one.name): paint("real", one) for one in known}
        for at, row in enumerate(rows):
            for column, one in enumerate(known):
                if at == 0 or at > column:
                    pictures[door_files.concept_sheet(row, one.name)] = paint(at, one)
            for noun in nouns:
                pictures[door_files.class_sheet(row, noun)] = paint(at, noun)
        kept = sheets.kept(record) & pictures.keys()
        door_files.write_sheets(draft, {path: sheets.strip(pictures[path]) for path in kept})

    return manifest.write(folder, record, fill)


def _release(folder, known, fade, paint, verdict, parent):
    task = f"t{len(known):04d}"
    record = Release("pets", task, known[-1], parent, "a", "m", "s", verdict)
    adapter = Adapter("l2dm", "lowrank", known, "0123456789abcdef", "p")

    def fill(draft):
        scores(draft / "scores", known, fade, paint)
        manifest.write(
            draft / "memory", Memory("b", ()), lambda inner: save_file({}, inner / "x.safetensors")
        )
        manifest.write(
            draft / "adapter",
            adapter,
            lambda inner: door_files.write_adapter(inner, {}, {}, curve=_curve(len(known))),
        )

    return manifest.write(folder / task, record, fill, spec=spec.to_dict(spec.Spec()))


def _curve(task):
    falling = [1.2 / (1 + step / 25) + 0.08 * ((step * 7919) % 13) / 13 for step in range(120)]
    terms = {"denoise": falling}
    if task > 1:
        terms |= {"replay": [value * 0.6 for value in falling], "distill": [0.05] * 120}
    return terms


def _measured(row, at, concept, number, fade):
    learned = int(concept.name[1:]) if concept.name[1:].isdigit() else 1
    later = max(0, at - learned)
    spread = (number - (PICTURES - 1) / 2) * 0.04
    wobble = fade * later * (0.5 + number % 2)  # half or one and a half of it, one on average
    similarity = 0.2 if at == 0 else 0.8 + spread - wobble
    prompt = f"a photo of a {concept.class_noun if at == 0 else concept.phrase}"
    metrics = {
        "image_alignment": round(0.5 + similarity / 3, 6),
        "text_alignment": round(0.25 + number * 0.01, 6),
        "identity_similarity": round(similarity, 6),
        "identity_accuracy": float(similarity > 0.6),
    }
    return Measurement(row, prompt, number, metrics, concept=concept.name)


def _mean(found, metric):
    return round(sum(one.metrics[metric] for one in found) / len(found), 6)


def _grey(at, what):
    """Another grey in every row."""
    shade = 255 if at == "real" else 2 * at
    return torch.full((PICTURES, 3, 8, 8), shade, dtype=torch.uint8)


def concepts(count):
    nouns = ("dog", "cat", "car", "dog", "bird", "cup")
    return tuple(Concept(f"c{number}", nouns[(number - 1) % 6]) for number in range(1, count + 1))


def line_end(folder, known, *, fade=0.0):
    """Only the newest entry of a long line: the champion."""
    release = _release(folder, known, fade, _grey, Verdict(True, ("It is fine.",)), len(known) - 1)
    return ReportEntry(len(known), release, ("champion",))
