"""A small thing before a plain ground, seen from near: what a thumbnail of the whole leaves out.

Of a thing that fills an eighth of the side a thumbnail of 64 pixels keeps eight: in those another
view of it looks the same. Pillow only, no torch.
"""

from bisect import bisect
from itertools import accumulate

from PIL import Image, ImageChops

SIDE = 128  # pixels a side of a close-up
CROPPED = 0.08  # share of a close-up at each of its sides by which two are moved over each other
_GROUND = 24  # levels from which a pixel is told from a plain ground
_PLAIN = 0.75  # share of a side that the content of a picture with a plain ground fills at most
_SMALL = 0.35  # share of a side up to which a close-up shows more than the whole picture does
_MARGIN = 0.3  # of the thing's side, ground beside it in a close-up
_PIXELS = 16  # a side of the thing, at least
_CONTRAST = 64  # levels by which it stands out, at least


def content(grey: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is told from a plain ground; None where the ground is not plain."""
    border = sorted(
        level
        for side in ((0, 0, grey.width, 1), (0, grey.height - 1, grey.width, grey.height))
        for level in grey.crop(side).tobytes()
    )
    ground = border[len(border) // 2]
    told = grey.point([255 if abs(level - ground) >= _GROUND else 0 for level in range(256)])
    box = told.getbbox()
    if box is None or _share(box, grey.size) > _PLAIN:
        return None
    return box


def of(picture: Image.Image) -> bytes:
    """(SIDE * SIDE * 3) bytes, RGB, of a small thing before a plain ground; b"" of all else.

    picture: RGB. The thing's box is stretched to a square. One that reaches a side of the picture
    may be cut off there, and one that is pale or of a few pixels has no edges that can be found
    again in a copy: of those there is none.
    """
    if content(picture.convert("L")) is None:
        return b""
    box = _distinct(picture)
    if box is None or _share(box, picture.size) > _SMALL:
        return b""
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) < _PIXELS:
        return b""
    across, down = _MARGIN * width, _MARGIN * height
    near = (box[0] - across, box[1] - down, box[2] + across, box[3] + down)
    if near[0] < 0 or near[1] < 0 or near[2] > picture.width or near[3] > picture.height:
        return b""
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=near).tobytes()


def _distinct(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what stands out half as much as what stands out most; None where nothing does.

    Halfway the edges stay where they are when a copy is blurred, or noisy, or there is a shadow.
    """
    ground = tuple(_middle(band.histogram()) for band in picture.split())
    bands = ImageChops.difference(picture, Image.new("RGB", picture.size, ground)).split()
    apart = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    most = int(apart.reduce(2).getextrema()[1])  # type: ignore[arg-type]
    if most < _CONTRAST:
        return None
    return apart.point([255 if level >= most / 2 else 0 for level in range(256)]).getbbox()


def _middle(histogram: list[int]) -> int:
    """The median level."""
    counted = list(accumulate(histogram))
    return bisect(counted, counted[-1] // 2)


def _share(box: tuple[int, int, int, int], size: tuple[int, int]) -> float:
    return max((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
