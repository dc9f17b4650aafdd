"""What lies inside each door: the one module that knows file names and tensor keys of payloads.

A writer fills the draft folder that `manifest.write` hands out. A reader takes a door whose bytes
`manifest.read` has checked, and checks that they are the payload of this record. torch and Pillow
are imported inside functions: names and JSON payloads can be had without them.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from l2dm import doors
from l2dm.errors import BadDoor
from l2dm.files.full_disk import told_as_system
from l2dm.files.manifest import Door

if TYPE_CHECKING:
    from torch import Tensor

# Task
PICTURES = "pictures"
# Prior, beside PICTURES
LATENTS = "latents.safetensors"
# Memory
LONG_TERM = "long_term.safetensors"
SHORT_TERM = "short_term.safetensors"
# Drawn
DRAWN = "drawn.safetensors"
# Adapter
WEIGHTS = "adapter.safetensors"
ROWS = "tokens.safetensors"
STATE = "method.safetensors"
CURVE = "curve.json"
# Scores and Check
VALUES = "values.json"
SHEETS = "sheets"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.~ -]")
CLASS_SHEETS = "class-"  # sheets/<row>/class-<noun>.png lies beside sheets/<row>/<concept>.png
# Release: the doors in it
ADAPTER, MEMORY, SCORES = "adapter", "memory", "scores"

LossCurve = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class ClassPictures:
    """One noun's pictures. latents: (n, C, h, w), scaled; pictures: (n, 3, H, W) uint8."""

    latents: "Tensor"
    pictures: "Tensor"


@dataclass(frozen=True)
class Features:
    """One concept's real pictures as unit features. image: (n, d); identity: (n, d')."""

    image: "Tensor"
    identity: "Tensor"


@dataclass(frozen=True)
class DrawnCall:
    """What one call of the sampler drew. pictures: (n, 3, H, W) uint8; latents: (n, C, h, w)."""

    pictures: "Tensor"
    latents: "Tensor | None" = None


def picture_names(count: int) -> tuple[str, ...]:
    """What the pictures of a task are called inside its door."""
    return tuple(f"{PICTURES}/{index:02d}.png" for index in range(count))


def write_pictures(folder: Path, pictures: "Tensor") -> None:
    """The payload of a Task door. pictures: (n, 3, H, W) uint8."""
    from l2dm.files.images import save_png

    (folder / PICTURES).mkdir()
    for name, picture in zip(picture_names(len(pictures)), pictures, strict=True):
        save_png(picture, folder / name)


def read_pictures(task: Door[doors.Task], most: int | None = None) -> "Tensor":
    """The pictures of a task, (n, 3, H, W) uint8, all or the first ones. Raises BadDoor."""
    from l2dm.files.images import stack

    return stack([task.path(name) for name in task.record.pictures[:most]])


def write_class_pictures(folder: Path, drawn: Mapping[str, ClassPictures]) -> None:
    """The payload of a Prior door, by noun in the order of its record."""
    from l2dm.files.images import save_png

    _save(folder / LATENTS, {noun: one.latents for noun, one in drawn.items()})
    for index, one in enumerate(drawn.values()):
        (folder / PICTURES / str(index)).mkdir(parents=True)
        for number, picture in enumerate(one.pictures):
            save_png(picture, folder / _class_picture(index, number))


def read_class_latents(prior: Door[doors.Prior]) -> dict[str, "Tensor"]:
    """The latents of every noun, (n, C, h, w) each. Raises BadDoor."""
    found, record = _load(prior, LATENTS), prior.record
    _require_keys(prior, LATENTS, found, record.nouns)
    for noun in record.nouns:
        _require_count(prior, f"latents of {noun!r}", len(found[noun]), len(record.seeds))
    return {noun: found[noun] for noun in record.nouns}


def read_class_pictures(prior: Door[doors.Prior], noun: str, most: int | None = None) -> "Tensor":
    """The pictures of one noun, (n, 3, H, W) uint8, all or the first ones. Raises BadDoor."""
    from l2dm.files.images import stack

    index, numbers = prior.record.nouns.index(noun), range(len(prior.record.seeds))[:most]
    return stack([prior.path(_class_picture(index, number)) for number in numbers])


def write_memory(
    folder: Path, features: Mapping[str, Features], short_term: "Tensor | None" = None
) -> None:
    """The payload of a Memory door.

    features: what it keeps for good, by concept name. short_term: the latents that it holds for
    one task, (m, C, h, w); None in a release.
    """
    tensors: dict[str, Tensor] = {}
    for name, one in features.items():
        image, identity = _feature_keys(name)
        tensors |= {image: one.image, identity: one.identity}
    _save(folder / LONG_TERM, tensors)
    if short_term is not None:
        _save(folder / SHORT_TERM, {"latents": short_term})


def read_long_term(
    memory: Door[doors.Memory], concepts: Sequence[doors.Concept] | None = None
) -> dict[str, Features]:
    """Features by concept name, of some concepts or of all. Raises BadDoor when one is missing."""
    if concepts is None:
        concepts = [one.concept for one in memory.record.long_term]
    if not concepts:
        return {}
    found = _load(memory, LONG_TERM)
    keys = {one.name: _feature_keys(one.name) for one in concepts}
    missing = sorted(key for pair in keys.values() for key in pair if key not in found)
    if missing:
        raise BadDoor(
            f"expected features of every concept in {memory.folder}, found no {missing}; "
            "run score_memory again"
        )
    for one in memory.record.long_term:
        for key in keys.get(one.concept.name, ()):
            _require_count(memory, f"rows of {key!r}", len(found[key]), len(one.prompts))
    return {
        name: Features(found[image], found[identity]) for name, (image, identity) in keys.items()
    }


def copy_long_term(memory: Door[doors.Memory], folder: Path) -> None:
    """The same bytes in another Memory door."""
    shutil.copyfile(memory.path(LONG_TERM), folder / LONG_TERM)


def read_short_term(memory: Door[doors.Memory]) -> "Tensor":
    """The latents of `short_term`, (m, C, h, w). Raises BadDoor; a release holds none."""
    found = _load(memory, SHORT_TERM)
    _require_keys(memory, SHORT_TERM, found, ("latents",))
    latents = found["latents"]
    _require_count(memory, "short-term latents", len(latents), len(memory.record.short_term))
    return latents


def write_drawn(folder: Path, calls: Sequence[DrawnCall]) -> None:
    """The payload of a Drawn door, in the order of its record's calls."""
    tensors = {}
    for at, call in enumerate(calls):
        tensors[f"{at}/pictures"] = call.pictures
        if call.latents is not None:
            tensors[f"{at}/latents"] = call.latents
    _save(folder / DRAWN, tensors)


def read_drawn(drawn: Door[doors.Drawn]) -> tuple[DrawnCall, ...]:
    """What was drawn, one entry a call of the record. Raises BadDoor."""
    found, calls = _load(drawn, DRAWN), drawn.record.calls
    kinds = ("pictures", "latents") if drawn.record.step == "score_memory" else ("pictures",)
    _require_keys(drawn, DRAWN, found, [f"{at}/{one}" for at in range(len(calls)) for one in kinds])
    return tuple(
        DrawnCall(found[f"{at}/pictures"], found.get(f"{at}/latents")) for at in range(len(calls))
    )


def write_adapter(
    folder: Path,
    weights: Mapping[str, "Tensor"],
    rows: Mapping[str, "Tensor"],
    state: Mapping[str, "Tensor"] | None = None,
    curve: LossCurve | None = None,
) -> None:
    """The payload of an Adapter door.

    rows: (n, d) per concept name. state: what the method needs again at the next task; without any
    there is no file. curve: loss terms per step; None where nothing was trained step by step.
    """
    _save(folder / WEIGHTS, weights)
    _save(folder / ROWS, rows)
    if state:
        _save(folder / STATE, state)
    if curve is not None:
        (folder / CURVE).write_text(json.dumps({"terms": curve}), encoding="utf-8")


def read_weights(adapter: Door[doors.Adapter]) -> dict[str, "Tensor"]:
    """The adapter's weights by name, shaped as its kind says; none in a line's empty one.

    Raises BadDoor.
    """
    return {} if adapter.record.kind == "none" else _load(adapter, WEIGHTS)


def read_rows(adapter: Door[doors.Adapter]) -> dict[str, "Tensor"]:
    """Token rows, (n, d) per concept name; none in the empty adapter. Raises BadDoor."""
    return {} if adapter.record.kind == "none" else _load(adapter, ROWS)


def read_state(adapter: Door[doors.Adapter]) -> dict[str, "Tensor"]:
    """What the method left for the next task, by name, in its own shapes; empty without any."""
    return _load(adapter, STATE) if adapter.path(STATE).is_file() else {}


def read_curve(adapter: Path) -> LossCurve:
    """Loss terms per step from an Adapter door's folder; empty when none were written.

    Raises BadDoor.
    """
    path = adapter / CURVE
    if not path.is_file():
        return {}
    content = _json(path)
    if not isinstance(content, dict) or not isinstance(content.get("terms"), dict):
        raise BadDoor(f"expected loss terms in {path}, found none; train the task again")
    terms: LossCurve = content["terms"]
    return terms


def write_measurements(folder: Path, measurements: Sequence[doors.Measurement]) -> None:
    """`values.json` of a Scores or a Check door."""
    entries = [_entry(one) for one in measurements]
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    (folder / VALUES).write_text(text, encoding="utf-8")


def read_measurements(
    door: Door[doors.Scores] | Door[doors.Check],
) -> tuple[doors.Measurement, ...]:
    """Every measurement of a door, in the order of drawing. Raises BadDoor.

    None in the empty scores that a line starts from, and in a check that could draw nothing.
    """
    path, record = door.path(VALUES), door.record
    measured = record.concepts if isinstance(record, doors.Scores) else record.findings
    if not path.is_file():
        if not measured:
            return ()
        step = "evaluate" if isinstance(record, doors.Scores) else "check"
        raise BadDoor(
            f"expected {VALUES} in {door.folder}, found none for {len(measured)} concepts; "
            f"run {step} again"
        )
    content = _json(path)
    if not isinstance(content, list):
        raise BadDoor(f"expected a list in {path}, found {content!r:.60}; evaluate again")
    return tuple(_measurement(path, entry) for entry in content)


def concept_sheet(row: str, name: str) -> str:
    """What the model of a row draws for a concept: a file of a Scores door."""
    return f"{SHEETS}/{row}/{name}.png"


def class_sheet(row: str, noun: str) -> str:
    """What the model of a row draws for a class noun: a file of a Scores door.

    A noun may hold any printable letter, and be longer in bytes than a file system takes. MLflow
    and servers read a `%` in a name as a sign of their own. So a noun that is not plain is written
    with `_`, and with a digest that tells it from others.
    """
    plain = _NOT_PLAIN.sub("_", noun)
    if plain != noun:
        plain = f"{plain}-{hashlib.sha256(noun.encode()).hexdigest()[:8]}"
    return f"{SHEETS}/{row}/{CLASS_SHEETS}{plain}.png"


def quoted_class_sheet(row: str, noun: str) -> str:
    """The same as releases before 0.2 wrote it."""
    return f"{SHEETS}/{row}/{CLASS_SHEETS}{quote(noun, safe=' ')}.png"


def real_sheet(name: str) -> str:
    """The real pictures of a concept: a file of a Scores door."""
    return f"{SHEETS}/real/{name}.png"


def check_sheet(name: str) -> str:
    """The fresh pictures of a concept: a file of a Check door."""
    return f"{SHEETS}/{name}.png"


def write_sheets(folder: Path, sheets: Mapping[str, "Tensor"]) -> None:
    """Sheets of a Scores or a Check door, (3, H, W) uint8 by file name inside the door."""
    from l2dm.files.images import save_png

    for name, picture in sheets.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_png(picture, folder / name)


def row_sheets(scores: Door[doors.Scores], row: str) -> tuple[Path, ...]:
    """The sheets of one row that a Scores door holds, sorted."""
    return tuple(sorted(scores.path(f"{SHEETS}/{row}").glob("*.png")))


def check_sheets(check: Door[doors.Check]) -> tuple[Path, ...]:
    """The sheets that a Check door holds, sorted; none where nothing could be drawn."""
    return tuple(sorted(check.path(SHEETS).glob("*.png")))


def _class_picture(noun: int, number: int) -> str:
    return f"{PICTURES}/{noun}/{number:03d}.png"


def _feature_keys(name: str) -> tuple[str, str]:
    return f"{name}/image", f"{name}/identity"


def _entry(one: doors.Measurement) -> dict[str, Any]:
    entry = {"row": one.row, "prompt": one.prompt, "seed": one.seed, "metrics": dict(one.metrics)}
    shown = {"concept": one.concept, "noun": one.noun}
    return entry | {kind: name for kind, name in shown.items() if name is not None}


def _measurement(path: Path, entry: Any) -> doors.Measurement:
    try:
        found = doors.Measurement(**entry)
    except TypeError as error:
        raise _no_measurement(path, entry) from error
    texts = (found.row, found.prompt, found.noun if found.concept is None else found.concept)
    fits = (
        all(isinstance(text, str) for text in texts)
        and (found.concept is None or found.noun is None)
        and type(found.seed) is int
        and isinstance(found.metrics, dict)
        and all(type(value) in (int, float) for value in found.metrics.values())
    )
    if not fits:
        raise _no_measurement(path, entry)
    return found


def _no_measurement(path: Path, entry: Any) -> BadDoor:
    return BadDoor(
        f"expected row, prompt, seed, metrics and either concept or noun of every picture in "
        f"{path}, found {entry!r:.200}; evaluate again"
    )


def _save(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    from safetensors.torch import save_file

    with told_as_system(path):
        save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, path)


def _load(door: Door[Any], name: str) -> dict[str, "Tensor"]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(door.path(name))
    except (OSError, SafetensorError) as error:
        raise BadDoor(
            f"expected tensors in {door.path(name)}, found none that can be read ({error}); "
            "run the step that writes it again"
        ) from error
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadDoor(
            f"expected JSON in {path}, found none that can be read ({error}); "
            "run the step that writes it again"
        ) from error


def _require_keys(
    door: Door[Any], name: str, found: Mapping[str, "Tensor"], wanted: Sequence[str]
) -> None:
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise BadDoor(
            f"expected tensors {sorted(wanted)} in {door.path(name)}, found no {missing}; "
            "run the step that writes it again"
        )


def _require_count(door: Door[Any], what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise BadDoor(
            f"expected {wanted} {what} in {door.folder}, as its record says, found {found}; "
            "run the step that writes it again"
        )
