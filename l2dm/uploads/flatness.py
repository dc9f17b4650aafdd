"""Is a picture a photograph, or flat: few colours, as drawn? Pillow only.

A photograph has many colours, because light and a sensor's noise change every pixel. Counted are
the colours that make up most of a small copy, at four bits a channel, where noise of that size is
averaged away and shading is not. How often this is wrong stands in docs/pocket.md.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from PIL import Image

from l2dm.uploads.pictures import formats

SIDE = 64  # of the small copy
MOST = 0.9  # share of its pixels whose colours are counted
FLAT = 24  # colours that a flat picture has at most


def are_photographs(pictures: Iterable[Path]) -> bool:
    """Whether most of these pictures are photographs. Raises OSError where one cannot be read.

    pictures: that were checked (`reader.PictureReader`): nothing bounds what they cost here.
    """
    counted = [_counted(path) for path in pictures]
    return bool(counted) and median(counted) > FLAT


def colours(picture: Image.Image) -> int:
    """How many colours make up most of an RGB picture's middle."""
    small = _small(picture).point(lambda value: value >> 4)
    counts = sorted((count for count, _ in small.getcolors(SIDE * SIDE) or ()), reverse=True)
    wanted, covered = MOST * sum(counts), 0
    for number, count in enumerate(counts, start=1):
        covered += count
        if covered >= wanted:
            return number
    return len(counts)


def _counted(path: Path) -> int:
    with Image.open(path, formats=formats()) as picture:
        picture.draft("RGB", (4 * SIDE, 4 * SIDE))  # a JPEG of 50 megapixels is not read whole
        return colours(picture.convert("RGB"))


def _small(picture: Image.Image) -> Image.Image:
    """The middle square of it, (SIDE, SIDE) at most."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.crop((left, top, left + side, top + side))
    if side <= SIDE:
        return middle
    return middle.resize((SIDE, SIDE), Image.Resampling.BOX)
