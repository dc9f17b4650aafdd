"""What the model draws for each concept and each class word, task after task, on the same seeds."""

from dataclasses import dataclass
from pathlib import Path

from l2dm.doors import Scores
from l2dm.evaluation import sheets
from l2dm.files.manifest import Door
from l2dm.metrics.forgetting import number as finite
from l2dm.reporting import page
from l2dm.reporting.story import CONCEPTS, IDENTITY, Story


@dataclass(frozen=True)
class _Strip:
    """One row of pictures: who drew it, the file, and what was measured on it."""

    label: str
    path: Path
    score: str = ""
    note: str = ""
    real: bool = False


def concepts(story: Story, scores: Door[Scores]) -> str:
    """A block a concept: real pictures, the base, then the model after each task."""
    record = scores.record
    matrix = record.matrices[IDENTITY]
    blocks = []
    for column in story.columns:
        concept = record.concepts[column]
        strips = [_Strip("real", scores.path(sheets.real_path(concept.name)), real=True)]
        for row in sorted({*story.rows, column + 1}):
            if row == 0 or row > column:
                path = scores.path(sheets.concept_path(record.rows[row], concept.name))
                score = page.number(finite(matrix[row][column]))
                strips.append(_Strip(record.rows[row], path, score))
        blocks.append(_block(f"<{concept.name}> {concept.class_noun}", strips))
    caption = (
        "Pictures in one column share their seed and prompt, so a column that stays the same is a "
        "concept that was kept. Top: the real pictures that were uploaded; then the base, which "
        "was asked for the class alone. At the right, identity similarity; “identical” means every "
        f"byte is as in the row above.{story.bounds}"
    )
    return page.section("What the model draws", caption, _blocks(blocks))


def class_prompts(story: Story, scores: Door[Scores]) -> str:
    """A block a class noun: the base, then the model after each task."""
    record = scores.record
    measured = {(one.row, one.noun): one for one in record.drift}
    nouns = [one.noun for one in story.last_drift()]
    blocks = []
    for noun in nouns[:CONCEPTS]:
        strips = [_Strip("base", scores.path(sheets.class_path("base", noun)))]
        for row in (record.rows[number] for number in story.rows[1:]):
            found = measured.get((row, noun))
            if found is not None:
                path = scores.path(sheets.class_path(row, noun))
                kid = f"KID {page.number(found.kid, 1)}"
                strips.append(_Strip(row, path, page.number(found.distance, 3), kid))
        blocks.append(_block(noun, strips))
    more = f" {CONCEPTS} of {len(nouns)} nouns are shown." if len(nouns) > CONCEPTS else ""
    caption = (
        "The class words without any concept, same seeds: they should go on looking like the "
        "base’s. At the right, distance to the base’s picture of the same seed (0 is "
        f"none) and KID times 1000.{more}"
    )
    return page.section("Class prompts before and after", caption, _blocks(blocks))


def _block(title: str, strips: list[_Strip]) -> str:
    lines, above = [], b""
    for strip in strips:
        if not strip.path.is_file():
            continue  # sheets of long past rows are not carried on
        data = strip.path.read_bytes()
        notes = [strip.note] if strip.note else []
        notes += ["identical"] if data == above else []
        above = data
        kind = "strip real" if strip.real else "strip"
        drawn = page.picture(data, f"{title}, {strip.label}")
        score = f"<b>{page.text(strip.score)}</b>" if strip.score else ""
        lines.append(
            f'<div class="{kind}"><span>{page.text(strip.label)}</span>{drawn}'
            f"<div>{score}{page.text(', '.join(notes))}</div></div>"
        )
    return f"<div><h3>{page.text(title)}</h3>{''.join(lines)}</div>" if lines else ""


def _blocks(blocks: list[str]) -> str:
    body = "".join(blocks)
    return f'<div class="blocks">{body}</div>' if body else ""
