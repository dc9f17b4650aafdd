"""What the model draws for each concept and each class word, task after task, on the same seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from l2dm.doors import Scores
from l2dm.files import door_files
from l2dm.files.manifest import Door
from l2dm.metrics.forgetting import number as finite
from l2dm.reporting import templating
from l2dm.reporting.story import CONCEPTS, IDENTITY, Story


@dataclass(frozen=True)
class _Strip:
    """One row of pictures: who drew it, the PNG, and what was measured on it."""

    label: str
    png: bytes
    score: str = ""
    note: str = ""
    real: bool = False


@dataclass(frozen=True)
class _Block:
    """The strips of one concept or class noun, from top to bottom."""

    title: str
    strips: tuple[_Strip, ...]


def concepts(story: Story, scores: Door[Scores]) -> Markup:
    """A block a concept: real pictures, the base, then the model after each task."""
    record = scores.record
    matrix = record.matrices[IDENTITY]
    blocks = []
    for column in story.columns:
        concept = record.concepts[column]
        strips = [_strip("real", scores.path(door_files.real_sheet(concept.name)), real=True)]
        for row in sorted({*story.rows, column + 1}):
            if row == 0 or row > column:
                path = scores.path(door_files.concept_sheet(record.rows[row], concept.name))
                score = templating.number(finite(matrix[row][column]))
                strips.append(_strip(record.rows[row], path, score))
        blocks.append(_block(f"<{concept.name}> {concept.class_noun}", strips))
    return _section("concepts.html", blocks, story.bounds)


def class_prompts(story: Story, scores: Door[Scores]) -> Markup:
    """A block a class noun: the base, then the model after each task."""
    record = scores.record
    measured = {(one.row, one.noun): one for one in record.drift}
    nouns = [one.noun for one in story.last_drift()]
    blocks = []
    for noun in nouns[:CONCEPTS]:
        strips = [_strip("base", _class_sheet(scores, "base", noun))]
        for row in (record.rows[number] for number in story.rows[1:]):
            found = measured.get((row, noun))
            if found is not None:
                path = _class_sheet(scores, row, noun)
                kid = f"KID {templating.number(found.kid, 1)}"
                strips.append(_strip(row, path, templating.number(found.distance, 3), kid))
        blocks.append(_block(noun, strips))
    more = f" {CONCEPTS} of {len(nouns)} nouns are shown." if len(nouns) > CONCEPTS else ""
    return _section("class_prompts.html", blocks, more)


def _class_sheet(scores: Door[Scores], row: str, noun: str) -> Path:
    """Where it lies, also in a door of an earlier release."""
    earlier = scores.path(door_files.quoted_class_sheet(row, noun))
    return earlier if earlier.is_file() else scores.path(door_files.class_sheet(row, noun))


def _strip(
    label: str, path: Path, score: str = "", note: str = "", real: bool = False
) -> _Strip | None:
    """None without a file: sheets of long past rows are not carried on."""
    return _Strip(label, path.read_bytes(), score, note, real) if path.is_file() else None


def _block(title: str, strips: Sequence[_Strip | None]) -> _Block:
    shown: list[_Strip] = []
    for strip in strips:
        if strip is None:
            continue
        if shown and strip.png == shown[-1].png:
            note = f"{strip.note}, identical" if strip.note else "identical"
            strip = replace(strip, note=note)
        shown.append(strip)
    return _Block(title, tuple(shown))


def _section(template: str, blocks: Sequence[_Block], cut: str) -> Markup:
    found = [block for block in blocks if block.strips]
    return templating.fill(template, blocks=found, cut=cut) if found else Markup()
