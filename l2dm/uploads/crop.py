"""The square of a picture that is learned: where its content is, the middle where that is as good.

What stands out in colour from the rest of the picture counts as content (Achanta et al. 2009,
Frequency-tuned salient region detection: distance of the blurred pixel from the mean colour).
"""

from dataclasses import dataclass
from itertools import accumulate

from PIL import Image, ImageChops, ImageFilter

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the upright picture

MUCH = 0.4  # of the pixels cut off, from which it is told; 16:9 cuts off 0.44, 3:2 0.33
_SHORT = 32  # pixels of the shorter side of the map
_BETTER = 1.15  # times the content of the middle that another place must have


@dataclass(frozen=True)
class Cut:
    """The square of a picture and the share of its pixels that lie outside."""

    box: Box
    lost: float


def square(picture: Image.Image, size: tuple[int, int]) -> Cut:
    """The square with most of a picture's content, as large as it can be.

    picture: RGB, perhaps reduced; size: what the box is measured in, before it was reduced.
    """
    width, height = size
    side, spare = min(width, height), abs(width - height)
    at = round(spare * _place(picture)) if spare else 0
    left, top = (at, 0) if width > height else (0, at)
    return Cut((left, top, left + side, top + side), 1 - side / max(width, height))


def _place(picture: Image.Image) -> float:
    """Where along the longer side the square begins: 0 at its beginning, 1 as far as it can."""
    shown = _profile(picture)
    spare = len(shown) - _SHORT
    if spare <= 0:
        return 0.5
    sums = [0.0, *accumulate(shown)]
    content = [sums[at + _SHORT] - sums[at] for at in range(spare + 1)]
    middle = max(content[spare // 2], content[(spare + 1) // 2])
    best = max(content)
    if best <= _BETTER * middle:
        return 0.5
    places = [at for at, value in enumerate(content) if value >= 0.98 * best]
    return sum(places) / len(places) / spare


def _profile(picture: Image.Image) -> list[float]:
    """How much stands out in each column of a wide picture, in each row of a tall one."""
    width, height = picture.size
    if height > width:
        picture = picture.transpose(Image.Transpose.TRANSPOSE)
        width, height = height, width
    long = max(_SHORT, round(width * _SHORT / height))
    small = picture.resize((long, _SHORT), Image.Resampling.BOX, reducing_gap=2.0)
    mean = small.resize((1, 1), Image.Resampling.BOX).resize(small.size)
    bands = ImageChops.difference(small.filter(ImageFilter.GaussianBlur(1)), mean).split()
    columns = [0.0] * long
    for band in bands:
        for at, value in enumerate(band.tobytes()):
            columns[at % long] += value * value
    usual = sorted(columns)[long // 4]  # what any column has is ground
    return [max(0.0, value - usual) for value in columns]
