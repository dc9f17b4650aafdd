"""Whether two pictures are one: re-encoded, resized, a little cropped. Pillow only, no torch.

A thumbnail is laid over the other, cropped until both fit best; then the place where they differ
most decides. A copy differs a little everywhere. Another view of the thing differs much somewhere,
however plain or equal the ground. A small thing before a plain ground is looked at from near, too
(`closeup.py`). docs/uploads.md has the error rates.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from PIL import Image, ImageChops

from l2dm.uploads import closeup

FINE = 128  # pixels a side of the thumbnail that is kept
_SMALL = 160  # pixels of the smaller side below which a picture holds no such detail
_WINDOW = 4  # pixels a side of the places that are compared, in a thumbnail of half the size
_IF_SMALL = 1.22  # times what a place may differ, of a picture that small
_IF_NEAR = 2.8  # times that, in a close-up, where a place is a few pixels of the picture
_UNCUT = 0.65  # of that where nothing is cut off, so that nothing is laid over a little beside
_CUT = 0.6  # pixels cut off in all, of a thumbnail of half the size, from which all of it holds
_FULL_RANGE = 160  # levels between darkest and brightest pixel from which the above holds
_NOISE = 2.0  # levels that an encoder adds to the plainest picture
_CROPPED = 0.1  # of each side, at most
_ROUGH, _EXACT = (0.5, 0.25), (0.5, 0.25, 0.125, 0.0625, 0.03125)  # steps, in shares of that
_MEAN = 0.4  # of what a place may differ, that all places together may
_HOPELESS = 3.5  # times what is allowed: after the rough search, no exact one brings them together
_FAR = 1.0  # mean difference over contrast of the coarsest thumbnails; copies: 0.8 at most
_COARSE = 8  # pixels a side of those
_SCALES = (1.0, 0.97, 0.93, 0.88)  # share of each side that is left, to begin with
_MOVES = ((1, 0), (0, 1), (1, 1), (-1, 0), (0, -1), (1, -1), (-1, 1), (-1, -1))

_Sides = tuple[float, float, float, float]  # cut off: left, top, right, bottom


@dataclass(frozen=True)
class Appearance:
    """How a picture looks, small enough to compare with twenty others.

    format: one of `pictures.FORMATS`. size: width and height, upright. span: the largest difference
    between two pixels in any colour, in levels. colours: (FINE * FINE * 3) bytes, RGB. near: as
    `closeup.of` sees it.
    """

    format: str
    size: tuple[int, int]
    span: int
    colours: bytes
    near: bytes = b""


def appearance(kind: str, picture: Image.Image, size: tuple[int, int]) -> Appearance:
    """Of an RGB picture, perhaps reduced. kind: its format; size: before it was reduced."""
    span = max(int(high) - int(low) for low, high in picture.getextrema())  # type: ignore[misc]
    thumbnail = picture.resize((FINE, FINE), Image.Resampling.BILINEAR)
    return Appearance(kind, size, span, thumbnail.tobytes(), closeup.of(picture))


def same(one: Appearance, other: Appearance, levels: float) -> bool:
    """Whether two looks are one picture. levels: of 255, by which no place of them may differ.

    They count where a picture has its full range, and less where it has less. 0 asks for nearly
    equal pixels.
    """
    wide, narrow = sorted((one.size[0] / one.size[1], other.size[0] / other.size[1]), reverse=True)
    if wide / narrow > 1 / (1 - 2 * _CROPPED) + 0.05:
        return False
    small = min(*one.size, *other.size) < _SMALL
    a, b = (_thumbnail(each, FINE // 2 if small else FINE) for each in (one, other))
    if _is_far(a.coarse, b.coarse):
        return False
    levels *= min(1.0, min(a.span, b.span) / _FULL_RANGE)
    limits = _Limits(levels * _IF_SMALL, 1.0) if small else _Limits(levels, _UNCUT)
    uncut = ImageChops.difference(a.half, b.half)
    alike = _is_within(uncut, limits.at((0, 0, 0, 0)))
    if not (alike or _is_crop(a, b, limits) or _is_crop(b, a, limits)):
        return False
    return small or _is_same_from_near(one, other, _IF_NEAR * levels + _NOISE)


def repeats(looks: Mapping[str, Appearance], levels: float) -> list[tuple[str, str]]:
    """Every name whose picture an earlier name shows already, as (earlier, later)."""
    found = []
    names = list(looks)
    for i, later in enumerate(names):
        for earlier in names[:i]:
            if same(looks[earlier], looks[later], levels):
                found.append((earlier, later))
                break
    return found


@dataclass(frozen=True)
class _Limits:
    """Levels that a place may differ. uncut: share of them where nothing is cut off."""

    levels: float
    uncut: float

    def at(self, cut: _Sides) -> float:
        share = self.uncut + (1 - self.uncut) * min(1.0, sum(cut) / _CUT)
        return self.levels * share + _NOISE


class _Thumbnail:
    """A look in four sizes: as it is kept, half of that in colour and grey, and very coarse."""

    def __init__(self, look: Appearance, side: int) -> None:
        whole = Image.frombytes("RGB", (FINE, FINE), look.colours)
        self.fine = whole if side == FINE else whole.reduce(FINE // side)
        self.half = self.fine.reduce(2)
        self.grey = self.half.convert("L")
        self.coarse = self.half.resize((_COARSE, _COARSE), Image.Resampling.BOX).tobytes()
        levels = self.half.getextrema()
        self.span = max(int(high) - int(low) for low, high in levels)  # type: ignore[misc]
        self.content = closeup.content(self.fine.convert("L"))


@lru_cache(maxsize=256)
def _thumbnail(look: Appearance, side: int) -> _Thumbnail:
    """Of a look; each is compared with all others of its upload."""
    return _Thumbnail(look, side)


def _is_far(one: bytes, other: bytes) -> bool:
    """Whether two coarse thumbnails are as different as any two pictures."""
    apart: int = sum(map(abs, map(operator.sub, one, other)))
    contrast = min(_contrast(one), _contrast(other))
    return apart > _FAR * contrast + len(one) * 4


def _contrast(colours: bytes) -> float:
    """Sum of distances from the mean colour."""
    pixels = len(colours) // 3
    means = [sum(colours[c::3]) / pixels for c in range(3)]
    return sum(abs(value - means[i % 3]) for i, value in enumerate(colours))


def _is_crop(whole: _Thumbnail, part: _Thumbnail, limits: _Limits) -> bool:
    """Whether one picture is the other, a little cut off at its sides."""
    cut = _fit(whole.grey, part.grey, _guess(whole, part), _ROUGH)
    if _worst(_most(_apart(whole, part, cut))) > _HOPELESS * limits.at(cut):
        return False
    cut = _fit(whole.grey, part.grey, cut, _EXACT)
    return _is_within(_apart(whole, part, cut), limits.at(cut))


def _is_same_from_near(one: Appearance, other: Appearance, limit: float) -> bool:
    """Whether close-ups of two looks are one, moved a little; also where there are not two."""
    if not one.near or not other.near:
        return True
    return any(
        _worst(_most(_apart_from_near(whole, part))) <= limit
        for whole, part in ((one.near, other.near), (other.near, one.near))
    )


def _apart_from_near(whole: bytes, part: bytes) -> Image.Image:
    """The difference of two close-ups, the edges of one moved until they are most alike."""
    side, cut = closeup.SIDE, closeup.CROPPED * closeup.SIDE
    a, b = (Image.frombytes("RGB", (side, side), each) for each in (whole, part))
    inner = (cut, cut, side - cut, side - cut)
    size = (side // 2, side // 2)
    seen = b.resize(size, Image.Resampling.BILINEAR, box=inner)
    sides = _fit(a.reduce(2).convert("L"), seen.convert("L"), (cut / 2,) * 4, _EXACT)
    left, top, right, bottom = (2 * each for each in sides)
    moved = a.resize(size, Image.Resampling.BILINEAR, box=(left, top, side - right, side - bottom))
    return ImageChops.difference(moved, seen)


def _guess(whole: _Thumbnail, part: _Thumbnail) -> _Sides:
    """Where to begin: with the content of both in one place, where the ground is plain.

    Of a small thing on plain ground nothing else says in which direction it has to be moved.
    """
    begin: _Sides = (0, 0, 0, 0)
    if whole.content is None or part.content is None:
        return begin
    side = whole.half.width
    across = _guesses(whole.content[0::2], part.content[0::2], side)
    down = _guesses(whole.content[1::2], part.content[1::2], side)
    guesses = ((x[0], y[0], x[1], y[1]) for x, y in product(across, down))
    return min((begin, *guesses), key=lambda cut: _cost(whole.grey, part.grey, cut))


def _guesses(here: Sequence[int], there: Sequence[int], side: int) -> list[tuple[float, float]]:
    """What to cut off before and behind, along one axis of `side` pixels.

    here, there: where the content begins and ends, in halves of a pixel. Its beginning, middle or
    end is laid over the other's, for each scale: the cut may have taken a part of the thing.
    """
    found = []
    for scale, share in product(_SCALES, (0.0, 0.5, 1.0)):
        points = [begin + (end - begin) * share for begin, end in (here, there)]
        before = (points[0] - points[1] * scale) / 2
        behind = side * (1 - scale) - before
        most = _CROPPED * side
        found.append((min(most, max(0.0, before)), min(most, max(0.0, behind))))
    return sorted(set(found))


def _is_within(difference: Image.Image, limit: float) -> bool:
    """Whether no place differs more than it may, nor all of them together."""
    most = _most(difference)
    mean = sum(map(operator.mul, most.histogram(), range(256))) / (most.width * most.height)
    return _worst(most) <= limit and mean <= _MEAN * limit


def _most(difference: Image.Image) -> Image.Image:
    """The difference of each pixel in the colour that differs most."""
    red, green, blue = difference.split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _worst(most: Image.Image) -> int:
    """Mean of the place that differs most, in levels."""
    return int(most.reduce(_WINDOW).getextrema()[1])  # type: ignore[arg-type]


def _apart(whole: _Thumbnail, part: _Thumbnail, cut: _Sides) -> Image.Image:
    """Cut off from the finer thumbnail, which blurs less."""
    side = whole.half.width
    left, top, right, bottom = (2 * one for one in cut)
    box = (left, top, 2 * side - right, 2 * side - bottom)
    cropped = whole.fine.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return ImageChops.difference(cropped, part.half)


def _fit(whole: Image.Image, part: Image.Image, cut: _Sides, steps: Sequence[float]) -> _Sides:
    """What has to be cut off from one grey thumbnail, (n, n), so that it is most like another."""
    most = _CROPPED * whole.width
    costs: dict[_Sides, int] = {}

    def cost(sides: _Sides) -> int:
        if sides not in costs:
            costs[sides] = _cost(whole, part, sides)
        return costs[sides]

    for step in steps:
        for _ in range(3):
            before = cost(cut)
            for first in (0, 1):  # left with right, top with bottom
                moved = (
                    _moved(cut, first, a * step * most, b * step * most, most) for a, b in _MOVES
                )
                cut = min((cut, *moved), key=cost)
            if cost(cut) == before:
                break
    return cut


def _moved(cut: _Sides, first: int, near: float, far: float, most: float) -> _Sides:
    sides = list(cut)
    sides[first] = min(most, max(0.0, sides[first] + near))
    sides[first + 2] = min(most, max(0.0, sides[first + 2] + far))
    return sides[0], sides[1], sides[2], sides[3]


def _cost(whole: Image.Image, part: Image.Image, cut: _Sides) -> int:
    left, top, right, bottom = cut
    box = (left, top, whole.width - right, whole.height - bottom)
    cropped = whole.resize(whole.size, Image.Resampling.BILINEAR, box=box)
    return sum(map(operator.mul, ImageChops.difference(cropped, part).histogram(), range(256)))
