"""Check a release: the same pictures, the bare base's, and fresh ones (metrics/health.py).

Cost is bounded by what was drawn at the release: twice its pictures of concepts, and those of the
base for the concept that it learned last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from l2dm.bases import attach
from l2dm.bases import folder as base_folder
from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base
from l2dm.bases.sampling import Progress, Shot
from l2dm.doors import Check, Concept, Measurement, Memory, Release, Scores
from l2dm.errors import BadDoor
from l2dm.evaluation import sheets
from l2dm.evaluation.matrix import BASE, fresh_distractors
from l2dm.evaluation.measure import Known, Subject, counted, measure, read_known
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door
from l2dm.metrics.health import Evidence, diagnose, largest
from l2dm.metrics.paired_test import Bars
from l2dm.releases import folder as releases
from l2dm.sections import replaced
from l2dm.spec import Spec, parse

METRIC = "identity_similarity"  # what forgetting is measured by, at the gate, too
COSINES = (METRIC, "image_alignment", "text_alignment")  # where the bare base may show a change
AGAIN, FRESH = "again", "fresh"
BACK = "bring its files back from a backup, or go back to another version: l2dm rollback"


@dataclass(frozen=True)
class Checked:
    """A Check door before it is written. pictures: fresh ones per concept, (n, 3, H, W) uint8."""

    record: Check
    measurements: tuple[Measurement, ...] = ()
    pictures: Mapping[str, Tensor] | None = None


def check_release(
    release: Path, base: str, spec: Spec, seed: int, *, on_progress: Progress | None = None
) -> tuple[Checked, Mapping[str, str]]:
    """Load a release and check it; what was found, and the digests of the doors it was found in.

    What keeps it from being drawn at all, changed files of the release or of the base, is a
    finding, too. Pictures are drawn as the release's own spec says. Raises BadBase.
    """
    now = base_folder.fingerprint(base_folder.locate(base))
    try:
        door = manifest.read(release, Release, called="the release", advice=BACK)
        adapter, bank = releases.adapter_of(release), releases.memory_of(release)
        scores = releases.scores_of(release)
    except BadDoor as error:
        return unfit(now, "", seed, "release", str(error)), {}
    inputs, row = {"release": door.digest}, scores.record.rows[-1]
    if now != adapter.record.base:
        return unfit(now, row, seed, "base", _other_base(adapter.record.base, now)), inputs
    if not scores.record.concepts:  # the only one was taken out
        reasons = ("It knows no concept, so there is none that it could have lost.",)
        return Checked(Check(now, row, seed, "healthy", "", 0.0, (), reasons)), inputs
    model = load_base(base)
    attach.attach_door(model, adapter)
    sampling = parse({"sampling": door.spec.get("sampling", {})}).sampling
    draw = counted(planned(scores), on_progress)
    subject = Subject(model, load_encoders(base), replaced(spec, sampling=sampling), draw)
    return check(subject, scores, bank, seed), inputs


def check(subject: Subject, scores: Door[Scores], memory: Door[Memory], seed: int) -> Checked:
    """Draw a release's pictures again, and as many from `seed` on; `subject` has it attached.

    Raises BadDoor when the release lacks the measurements or features of a concept.
    """
    record, stored = scores.record, door_files.read_measurements(scores)
    row = record.rows[-1]
    released = {one.name: _measured(stored, row, one, scores) for one in record.concepts}
    others = fresh_distractors(subject, record.concepts, seed)
    known = read_known(memory, record.concepts, others)
    evidence: dict[str, Evidence] = {}
    found: list[Measurement] = []
    pictures: dict[str, Tensor] = {}
    for concept in record.concepts:
        before = released[concept.name]
        again = measure(subject, known, concept, _same(before), AGAIN)
        fresh = measure(subject, known, concept, _other(before, seed), FRESH)
        evidence[concept.name] = Evidence(
            _scores(before), _scores(again.measurements), _scores(fresh.measurements)
        )
        found += [*again.measurements, *fresh.measurements]
        pictures[concept.name] = fresh.pictures
    control = _control(subject, known, record, stored, scores)
    spec = subject.spec.check
    told = diagnose(evidence, control, Bars(spec.margin, spec.alpha, spec.power))
    return Checked(
        Check(
            base=record.base,
            row=row,
            seed=seed,
            health=told.health,
            cause=told.cause,
            control=round(control, 6),
            findings=told.findings,
            reasons=told.reasons,
        ),
        tuple(found),
        pictures,
    )


def planned(scores: Door[Scores]) -> int:
    """Pictures that a check draws."""
    record = scores.record
    rows = [one.row for one in door_files.read_measurements(scores) if one.concept is not None]
    return 2 * rows.count(record.rows[-1]) + rows.count(BASE) // max(1, len(record.concepts))


def unfit(base: str, row: str, seed: int, cause: str, reason: str) -> Checked:
    """A release that cannot be drawn with at all: its files, or the base's, are others now."""
    return Checked(Check(base, row, seed, "regressed", cause, 0.0, (), (reason,)))


def save_check(checked: Checked, folder: Path) -> None:
    """Write the payload of a Check door."""
    door_files.write_measurements(folder, checked.measurements)
    drawn = checked.pictures or {}
    found = {door_files.check_sheet(name): sheets.strip(one) for name, one in drawn.items()}
    door_files.write_sheets(folder, found)


def _other_base(released: str, now: str) -> str:
    return (
        f"The base model is another one than at the release: expected fingerprint {released}, "
        f"found {now}. Put the former files back, or name the right base."
    )


def _control(
    subject: Subject,
    known: Known,
    record: Scores,
    stored: Sequence[Measurement],
    scores: Door[Scores],
) -> float:
    """How far the bare base moved on what it drew when the last concept was learned.

    By every cosine of a picture: on a line of many concepts there is but one of it.
    """
    last = record.concepts[-1]
    released = _measured(stored, BASE, last, scores)
    with subject.model.plain():
        again = measure(subject, known, last, _same(released), BASE)
    return max(largest(_scores(released, one), _scores(again.measurements, one)) for one in COSINES)


def _measured(
    stored: Sequence[Measurement], row: str, concept: Concept, scores: Door[Scores]
) -> list[Measurement]:
    found = [one for one in stored if (one.row, one.concept) == (row, concept.name)]
    if not found:
        raise BadDoor(
            f"expected values of {concept.placeholder} in row {row} of {scores.folder}, found "
            "none; a release without them cannot be compared with"
        )
    return found


def _same(released: Sequence[Measurement]) -> tuple[Shot, ...]:
    return tuple(Shot(one.prompt, one.seed) for one in released)


def _other(released: Sequence[Measurement], seed: int) -> tuple[Shot, ...]:
    return tuple(Shot(one.prompt, seed + index) for index, one in enumerate(released))


def _scores(measured: Sequence[Measurement], metric: str = METRIC) -> tuple[float, ...]:
    return tuple(float(one.metrics[metric]) for one in measured)
