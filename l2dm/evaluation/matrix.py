"""Fill the new row of every matrix: draw with fixed prompts and seeds, measure, keep each value.

Cost is bounded by the spec whatever the number K of concepts: at most max(budget, K) pictures of
concepts and max(budget, nouns) of class prompts a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from l2dm.bases.sampling import Shot
from l2dm.doors import Concept, Drift, Matrix, Measurement, Memory, Prior, Scores, Task
from l2dm.errors import DoesNotFit
from l2dm.evaluation import sheets
from l2dm.evaluation.measure import (
    DIGITS,
    METRICS,
    Cell,
    Drawer,
    Known,
    Subject,
    measure,
    read_known,
    rounded,
    share_of,
    shots_of,
)
from l2dm.files import door_files
from l2dm.files.manifest import Door
from l2dm.metrics import alignment, drift
from l2dm.spec import Spec

BASE = "base"
LAST_BITS = 0.5  # of 255: a mean difference that batches of another make-up can explain


@dataclass(frozen=True)
class Evaluation:
    """A Scores door before it is written.

    measurements: those of this row and of the new concept's base row. sheets: by file name inside
    the door, (3, H, W) uint8.
    """

    record: Scores
    measurements: tuple[Measurement, ...]
    sheets: Mapping[str, Tensor]


@dataclass(frozen=True)
class FreshRow:
    """The same model on other seeds: mean per metric and concept name, and every picture's."""

    means: Mapping[str, Mapping[str, float]]
    measurements: tuple[Measurement, ...]


@dataclass
class _Drifted:
    """What the class prompts gave."""

    records: list[Drift] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    sheets: dict[str, Tensor] = field(default_factory=dict)


def no_scores(base: str) -> Scores:
    """The scores that a line starts from: the base's row, without concepts."""
    empty: Matrix = ((),)
    return Scores(base, (BASE,), (), dict.fromkeys(METRICS, empty), (), {})


def new_row(
    subject: Subject,
    *,
    task: Door[Task],
    parent: Door[Scores],
    prior: Door[Prior],
    memory: Door[Memory],
) -> Evaluation:
    """Measure the model after this task on every concept, and the base on the new one.

    The base is prompted with the class noun alone, on the same seeds. Raises DoesNotFit when the
    doors belong to different bases, BadDoor when memory lacks a concept.
    """
    _require_one_base(task, parent, prior, memory)
    spec, row, new = subject.spec, task.record.id, task.record.concept
    concepts = (*parent.record.concepts, new)
    known = read_known(memory, concepts, _distractors(subject, prior))
    count, seed = share_of(spec, len(concepts)), spec.evaluate.seed
    with subject.model.plain():
        untaught = measure(subject, known, new, shots_of(new.class_noun, count, seed), BASE)
    cells = _measure_all(subject, known, concepts, seed, row)
    drifted = _measure_drift(subject, prior, row)
    record = _grown(parent.record, task.record, untaught, list(cells.values()), known)
    drawn = {door_files.concept_sheet(row, name): cell.pictures for name, cell in cells.items()}
    drawn[door_files.concept_sheet(BASE, new.name)] = untaught.pictures
    drawn[door_files.real_sheet(new.name)] = door_files.read_pictures(task, sheets.PICTURES)
    return Evaluation(
        record=replace(record, drift=(*record.drift, *drifted.records)),
        measurements=(*untaught.measurements, *_every(cells), *drifted.measurements),
        sheets={path: sheets.strip(pictures) for path, pictures in drawn.items()} | drifted.sheets,
    )


def drawings(
    drawer: Drawer, *, task: Door[Task], parent: Door[Scores], prior: Door[Prior]
) -> tuple[Callable[[], object], ...]:
    """Everything that `new_row` draws, in parts that can be drawn apart from each other.

    The base on the new concept, then every concept, then every class noun.
    """
    new = task.record.concept
    concepts = (*parent.record.concepts, new)
    count, seed = share_of(drawer.spec, len(concepts)), drawer.spec.evaluate.seed
    return (
        partial(drawer.plainly, shots_of(new.class_noun, count, seed)),
        *(partial(drawer, shots_of(concept.phrase, count, seed)) for concept in concepts),
        *(partial(_draw_noun, drawer, prior, noun) for noun in _nouns(drawer.spec, prior)),
    )


def save(evaluation: Evaluation, parent: Door[Scores], folder: Path) -> None:
    """Write the payload of a Scores door: the parent's measurements and sheets, then the new ones.

    Sheets of long past rows are left out (`sheets.kept`), so that a release does not grow with
    the square of the number of tasks.
    """
    past = door_files.read_measurements(parent)
    door_files.write_measurements(folder, (*past, *evaluation.measurements))
    sheets.carry(parent.folder, folder, evaluation.record)
    door_files.write_sheets(folder, evaluation.sheets)


def fresh_row(subject: Subject, *, memory: Door[Memory], seed: int) -> FreshRow:
    """Examine a release again on other seeds: has it kept what its row says?

    Where the base ships no foreign identities, its pictures of the class nouns take their place.
    """
    concepts = tuple(one.concept for one in memory.record.long_term)
    known = read_known(memory, concepts, fresh_distractors(subject, concepts, seed))
    cells = _measure_all(subject, known, concepts, seed, f"seed-{seed}")
    return FreshRow(
        means={
            metric: {name: cell.mean(metric) for name, cell in cells.items()} for metric in METRICS
        },
        measurements=_every(cells),
    )


def _measure_all(
    subject: Subject, known: Known, concepts: Sequence[Concept], seed: int, row: str
) -> Mapping[str, Cell]:
    count = share_of(subject.spec, len(concepts))
    return {
        concept.name: measure(subject, known, concept, shots_of(concept.phrase, count, seed), row)
        for concept in concepts
    }


def _every(cells: Mapping[str, Cell]) -> tuple[Measurement, ...]:
    return tuple(one for cell in cells.values() for one in cell.measurements)


def _measure_drift(subject: Subject, prior: Door[Prior], row: str) -> _Drifted:
    """Class prompts now, against the prior's pictures from the same captions and seeds."""
    drifted = _Drifted()
    for noun in _nouns(subject.spec, prior):
        shots, now, base = _draw_noun(subject.drawer, prior, noun)
        features = [subject.encoders.image(pictures) for pictures in (now, base)]
        distances = drift.seed_distance(*features).tolist()
        kid = drift.paired_kid(*features)
        drifted.measurements += [
            Measurement(row, shot.prompt, shot.seed, rounded({"distance": distance}), noun=noun)
            for shot, distance in zip(shots, distances, strict=True)
        ]
        drifted.records.append(
            Drift(
                row,
                noun,
                round(fmean(distances), DIGITS),
                None if kid is None else round(kid * 1000, DIGITS),
            )
        )
        drifted.sheets[door_files.class_sheet(row, noun)] = sheets.strip(now)
        drifted.sheets[door_files.class_sheet(BASE, noun)] = sheets.strip(base)
    return drifted


def _nouns(spec: Spec, prior: Door[Prior]) -> tuple[str, ...]:
    return prior.record.nouns[: spec.prior.max_nouns]


def _draw_noun(
    drawer: Drawer, prior: Door[Prior], noun: str
) -> tuple[Sequence[Shot], Tensor, Tensor]:
    """What the model draws of a class noun now, and what the base drew for the same shots."""
    spec, record = drawer.spec, prior.record
    count = min(share_of(spec, len(_nouns(spec, prior))), len(record.seeds))
    pairs = zip(record.captions[noun], record.seeds, strict=True)
    shots = [Shot(caption, seed) for caption, seed in pairs][:count]
    now = drawer(shots)
    drawn = door_files.read_class_pictures(prior, noun, count)
    return shots, now, _before(drawer, shots, now, drawn)


def _before(drawer: Drawer, shots: Sequence[Shot], now: Tensor, prior: Tensor) -> Tensor:
    """What the base drew for these shots, (n, 3, H, W).

    The prior was drawn in batches of another make-up, which may flip last bits. Where that is all
    the difference there is, the base draws again in this make-up: no drift is then exactly 0.
    """
    difference = (now.int() - prior.int()).abs()
    if not difference.any() or difference.float().mean() > LAST_BITS:
        return prior
    return drawer.plainly(shots)


def _grown(old: Scores, task: Task, untaught: Cell, cells: Sequence[Cell], known: Known) -> Scores:
    """The record with one more row and column; nothing above the diagonal, drift as it was."""
    concepts = (*old.concepts, task.concept)
    matrices: dict[str, Matrix] = {}
    for metric in METRICS:
        base, *past = old.matrices[metric]
        matrices[metric] = (
            (*base, untaught.mean(metric)),
            *((*row, None) for row in past),
            tuple(cell.mean(metric) for cell in cells),
        )
    return Scores(
        base=task.base,
        rows=(*old.rows, task.id),
        concepts=concepts,
        matrices=matrices,
        drift=old.drift,
        ceilings={
            "image_alignment": _ceilings(known.image, concepts),
            "identity_similarity": _ceilings(known.identity, concepts),
        },
    )


def _ceilings(real: Mapping[str, Tensor], concepts: Sequence[Concept]) -> tuple[float | None, ...]:
    found = [alignment.self_similarity(real[concept.name]) for concept in concepts]
    return tuple(None if value is None else round(value, DIGITS) for value in found)


def _distractors(subject: Subject, prior: Door[Prior]) -> Tensor:
    """Foreign identities: the base's own, or its class pictures, spread over the nouns."""
    wanted = subject.spec.evaluate.distractors
    nouns, seeds = prior.record.nouns, prior.record.seeds
    each = min(len(seeds), -(-wanted // max(1, len(nouns))))
    drawn = [door_files.read_class_pictures(prior, noun, each) for noun in nouns if each]
    return subject.encoders.distractors(wanted, torch.cat(drawn) if drawn else None)


def fresh_distractors(subject: Subject, concepts: Sequence[Concept], seed: int) -> Tensor:
    """Foreign identities, (q, d'), without a prior at hand: the base's own, or drawn by it now."""
    wanted = subject.spec.evaluate.distractors
    own = subject.encoders.distractors(wanted, None)
    if len(own) or not wanted or not concepts:
        return own
    nouns = dict.fromkeys(concept.class_noun for concept in concepts)
    count = share_of(subject.spec, len(nouns))
    shots = [shot for noun in nouns for shot in shots_of(noun, count, seed)]
    pictures = subject.drawer.plainly(shots)
    return subject.encoders.distractors(wanted, pictures)


def _require_one_base(
    task: Door[Task], parent: Door[Scores], prior: Door[Prior], memory: Door[Memory]
) -> None:
    expected = task.record.base
    for door in (parent, prior, memory):
        found = door.record.base
        if found != expected:
            raise DoesNotFit(
                f"{type(door.record).__name__} in {door.folder} was made with base {found}, "
                f"the task with {expected}; scores of different bases cannot be compared"
            )
