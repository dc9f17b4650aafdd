"""The sample sheets of a Scores door: where they lie, how they look, which are carried on.

A sheet is one row of the first few pictures, shrunk, so that a line's history stays small.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from l2dm.doors import Scores
from l2dm.files import images
from l2dm.files.door_files import class_sheet, concept_sheet, quoted_class_sheet, real_sheet

PICTURES = 4  # on a sheet
SIDE = 96  # pixels; larger pictures are shrunk
ROWS = 6  # latest rows whose sheets a door keeps, besides base, real and the row of learning


def strip(pictures: Tensor) -> Tensor:
    """The first pictures of (n, 3, H, W) uint8 in one row, shrunk to at most SIDE, (3, h, w)."""
    shown = pictures[:PICTURES]
    longest = max(shown.shape[-2:])
    if longest > SIDE:
        size = [max(1, round(side * SIDE / longest)) for side in shown.shape[-2:]]
        small = torch.nn.functional.interpolate(shown.float(), size=size, mode="area")
        shown = small.round().to(torch.uint8)
    return images.sheet(shown, PICTURES)


def kept(scores: Scores) -> frozenset[str]:
    """Sheets worth keeping of a line with these scores.

    Base and real pictures, every concept as it was learned, and everything of the latest rows.
    """
    paths = {real_sheet(one.name) for one in scores.concepts}
    nouns = {one.noun for one in scores.drift}
    for row in ("base", *scores.rows[-ROWS:]):
        paths |= {concept_sheet(row, one.name) for one in scores.concepts}
        paths |= {class_sheet(row, noun) for noun in nouns}
        paths |= {quoted_class_sheet(row, noun) for noun in nouns}
    learned = zip(scores.rows[1:], scores.concepts, strict=True)
    return frozenset(paths | {concept_sheet(row, one.name) for row, one in learned})


def carry(old: Path, new: Path, scores: Scores) -> None:
    """Copy the sheets that are worth keeping from one Scores door's folder to the next."""
    for path in sorted(kept(scores)):
        if (old / path).is_file():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old / path, new / path)
