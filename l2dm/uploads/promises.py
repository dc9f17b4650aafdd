"""Whether a picture file keeps what its header promises, and at a price that its size explains.

Decoders are lenient: they fill rows that never came with grey or with nothing, and they read as
many scans as somebody wrote. Pillow does not say so; here it is asked again.
"""

import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from l2dm.errors import BadUpload

MAX_SCANS = 100  # of a JPEG; cameras and optimisers write at most about twenty
MAX_SCANNED = (
    1_000_000_000  # pixels times scans: twenty of the largest picture, or 10 s of decoding
)
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # in entropy-coded data: neither 00 nor RST
_START_OF_SCAN, _END, _NO_LENGTH = 0xDA, 0xD9, {0x01, 0xD8, *range(0xD0, 0xD8)}
_FILLED = ("PNG", "GIF", "BMP", "TIFF")  # whose decoders leave pixels that never came as they were
_GREY = {"L": {128}, "RGB": {128}, "CMYK": {127, 128}}  # what libjpeg makes of a block of nothing


def require_few_scans(path: Path, pixels: int) -> None:
    """Refuse a JPEG of very many scans: each is a pass over all pixels. Raises BadUpload."""
    data = path.read_bytes()
    if data.count(b"\xff\xda") <= 10:  # as many at most, wherever they stand
        return
    scans = len(_scans(data))
    if scans > min(MAX_SCANS, max(10, MAX_SCANNED // pixels)):
        raise BadUpload(
            f"picture {path.name!r}: expected a JPEG of at most {MAX_SCANS} scans, found "
            f"{scans:,}, which would take minutes to read; save it again or leave it out"
        )


def load(open_: Callable[[], Image.Image], path: Path) -> Image.Image:
    """The picture that `open_` opens, with all its pixels. Raises BadUpload where rows are missing.

    open_: called again, for a second look, where the first one leaves a doubt.
    """
    picture = _filled(open_(), 1)
    doubtful = picture.format in _FILLED and _is_filled(picture, 1)
    if doubtful and _is_filled(_filled(open_(), 2), 2):
        raise _missing(path, picture)
    if picture.format in ("JPEG", "MPO") and _grey_rows(picture):
        scans = _scans(path.read_bytes())
        short = _ends_early(path, scans[0]) if len(scans) == 1 else _grey_rows(picture) >= 8
        if short:
            raise _missing(path, picture)
    if picture.format == "TIFF" and _has_grey_strip(picture):
        raise _missing(path, picture)
    if picture.format == "PNG" and not _sums_hold(path):
        raise BadUpload(
            f"picture {path.name!r}: expected a whole picture, found pixels that were changed "
            "after it was saved (their checksum differs); copy it again or leave it out"
        )
    return picture


def _missing(path: Path, picture: Image.Image) -> BadUpload:
    return BadUpload(
        f"picture {path.name!r}: expected the {picture.height} rows that its header promises, "
        "found that its data ends before; copy it again, save it as PNG, or leave it out"
    )


def _filled(picture: Image.Image, level: int) -> Image.Image:
    """Load a picture over one whose pixels are all `level`."""
    with picture:  # closes the file, keeps the pixels
        if picture.format in _FILLED:
            size = getattr(picture, "_tile_size", picture.size)  # of a TIFF: before it is turned
            picture.im = Image.new(picture.mode, size, level).im
        picture.load()
    return picture


def _is_filled(picture: Image.Image, level: int) -> bool:
    """Whether some side is as it was before.

    The lowest one as a rule, or the row above it where rows are interlaced; any where it is turned.
    """
    right, low = picture.size
    plain = Image.new(picture.mode, (1, 1), level).getextrema()
    rows = [(0, y, right, y + 1) for y in (0, low - 2, low - 1)]
    columns = [(x, 0, x + 1, low) for x in (0, right - 1)]
    return any(picture.crop(side).getextrema() == plain for side in (*rows, *columns))


def _grey_rows(picture: Image.Image) -> int:
    """How many of the last eight rows are of the grey that blocks without data have."""
    width, height = picture.size
    for count in range(8):
        if not _is_grey(picture.crop((0, height - count - 1, width, height - count))):
            return count
    return 8


def _has_grey_strip(picture: Image.Image) -> bool:
    """Whether a TIFF of JPEGs, one a strip, has eight rows of nothing anywhere; columns, turned."""
    if picture.info.get("compression") != "jpeg":
        return False
    width, height = picture.size
    rows = [(0, y, width, y + 8) for y in range(0, height - 7, 8)]
    columns = [(x, 0, x + 8, height) for x in range(0, width - 7, 8)]
    return any(_is_grey(picture.crop(band)) for band in (*rows, *columns))


def _is_grey(picture: Image.Image) -> bool:
    levels = picture.getextrema()
    pairs = levels if isinstance(levels[0], tuple) else (levels,)
    return not any(set(pair) - _GREY.get(picture.mode, set()) for pair in pairs)


def _sums_hold(path: Path) -> bool:
    """Whether the pixels of a PNG are those that were written; Pillow looks at other chunks only.

    Deflated bytes that were changed become other pixels, and often all of them.
    """
    for kind, size, file in png_chunks(path):
        if kind != b"IDAT":
            continue
        if zlib.crc32(file.read(size), zlib.crc32(kind)).to_bytes(4, "big") != file.read(4):
            return False
    return True


def png_chunks(path: Path) -> Iterator[tuple[bytes, int, BinaryIO]]:
    """Kind and size of every chunk of a PNG before its end, and the file where its data begin."""
    with open(path, "rb") as file:
        at = 8
        while file.seek(at) and len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            size = int.from_bytes(head[:4], "big")
            yield head[4:], size, file
            at += 12 + size


def _scans(data: bytes) -> list[int]:
    """Where the data of each scan of a JPEG ends; of its first picture, if there are several."""
    ends, at = list[int](), 2
    while found := _MARKER.search(data, at):
        code, at = found[1][0], found.end()
        if code == _END:
            break
        if code in _NO_LENGTH:
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        if code == _START_OF_SCAN:
            after = _MARKER.search(data, at)
            at = after.start() if after else len(data)
            ends.append(at)
    return ends


def _ends_early(path: Path, end: int) -> bool:
    """Whether a decoder that gets the one scan of a JPEG, and no end marker, still waits for rows.

    Zeros behind the data give it the bits that it reads ahead, and no more than a few blocks.
    """
    data = path.read_bytes()[:end] + bytes(32)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        pixels = Image.new(picture.mode, picture.size, 1)
        picture.im = pixels.im
        with suppress(OSError):  # always: it has no end
            picture.load()
    return _is_filled(pixels, 1)
