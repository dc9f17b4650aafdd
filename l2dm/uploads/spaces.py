"""Colour spaces that a picture names without a profile, and profiles that mean the same.

Cameras say "Adobe RGB" in EXIF; a PNG has chunks (cICP before a profile; sRGB, else gAMA and cHRM,
after it); AVIF and HEIC have a box (nclx). What is named and cannot be applied is told.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from l2dm.uploads.promises import png_chunks

Point = tuple[float, float]  # chromaticity x, y
_D65: Point = (0.3127, 0.3290)
_SRGB, _ADOBE, _P3, _BT2020 = (
    ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
    ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
)
_ADOBE_GAMMA = 563 / 256
_LIKE_SRGB = 0.01  # of a chromaticity, and a tenth of a gamma, that are taken for its own
_GAMMAS = (0.1, 10.0)  # exponents that a picture may have
# Code points of ITU-T H.273, as cICP and nclx have them: primaries, and curves as exponents.
_PRIMARIES: Mapping[int, tuple[tuple[Point, ...], Point]] = {
    1: (_SRGB, _D65),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), _D65),
    6: (((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)), _D65),
    9: (_BT2020, _D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, _D65),
}
_SRGB_CURVE, _FILM_CURVE = 0.0, -1.0  # curves that are no exponent
_CURVES = {
    **dict.fromkeys((1, 6, 14, 15), _FILM_CURVE),
    4: 2.2,
    5: 2.8,
    8: 1.0,
    13: _SRGB_CURVE,
}
_UNSAID = 2
_HEAD = 1_000_000  # bytes of a file in which its colour space is looked for
_CHUNKS = 1000  # of a PNG, before its pixels
_CHUNK_KEYS = {"srgb", "gamma", "chromaticity"}  # as Pillow calls them; they win over EXIF
BAD_EXIF = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError,
             ArithmeticError, RuntimeError, struct.error)  # fmt: skip


@dataclass(frozen=True)
class Space:
    """primaries: red, green, blue. gamma: exponent of the curve; 0: sRGB's, -1: that of BT.709."""

    primaries: tuple[Point, ...] = _SRGB
    white: Point = _D65
    gamma: float = _SRGB_CURVE


class SaidSpace(NamedTuple):
    """What a picture says of its colours beside a profile. note: of what cannot be applied."""

    space: Space | None = None
    note: str = ""


def said(picture: Image.Image, path: Path) -> SaidSpace:
    """The colour space that a picture names; none where that is sRGB, or its profile counts."""
    profiled = bool(picture.info.get("icc_profile"))
    if picture.format == "PNG" and (codes := _cicp(path)) and _UNSAID not in codes:
        coded = _coded(*codes)
        if not profiled:
            return coded
        # the profile is there for who cannot apply the code points, and for nobody else
        return SaidSpace() if coded.note else SaidSpace(coded.space or Space())
    if profiled:
        return SaidSpace()
    if picture.format == "PNG" and _CHUNK_KEYS & picture.info.keys():
        return SaidSpace(_chunks(picture.info))
    if picture.format in ("AVIF", "HEIF") and (codes := _nclx(path)):
        return _coded(*codes)
    return _exif(picture)


def _coded(primaries: int, curve: int) -> SaidSpace:
    if _UNSAID in (primaries, curve) or (primaries, curve) == (1, 13):
        return SaidSpace()
    if primaries not in _PRIMARIES or curve not in _CURVES:
        what = {16: "HDR, PQ", 18: "HDR, HLG"}.get(curve, f"code points {primaries}, {curve}")
        return SaidSpace(note=f"colours of {what}")
    if primaries == 1 and _CURVES[curve] == _FILM_CURVE:
        return SaidSpace()  # viewers show films and their stills on screens that are sRGB
    return SaidSpace(Space(*_PRIMARIES[primaries], _CURVES[curve]))


def _chunks(info: Mapping[str | tuple[int, int], object]) -> Space | None:
    """Of gAMA and cHRM; sRGB wins, and what is nearly that is it."""
    gamma, points = info.get("gamma"), info.get("chromaticity")
    if "srgb" in info:
        return None
    exponent, primaries, white = _SRGB_CURVE, _SRGB, _D65
    if isinstance(gamma, float) and gamma and _GAMMAS[0] <= 1 / gamma <= _GAMMAS[1]:
        exponent = 1 / gamma
    if isinstance(points, tuple) and len(points) == 8 and _is_triangle(points):
        white, *rest = [(float(points[i]), float(points[i + 1])) for i in range(0, 8, 2)]
        primaries = (rest[0], rest[1], rest[2])
    flat = [one for point in (*primaries, white) for one in point]
    own = [one for point in (*_SRGB, _D65) for one in point]
    if max(abs(a - b) for a, b in zip(flat, own, strict=True)) < _LIKE_SRGB:
        if exponent == _SRGB_CURVE or abs(exponent - 2.2) < 10 * _LIKE_SRGB:
            return None
        return Space(gamma=exponent)
    return Space(primaries, white, exponent)


def _is_triangle(points: tuple[float, ...]) -> bool:
    """Whether chromaticities (white, red, green, blue) span colours, with the white inside."""
    white, *corners = [(points[i], points[i + 1]) for i in range(0, 8, 2)]
    sides = [_turn(corners[i], corners[(i + 1) % 3], white) for i in range(3)]
    return min(p[1] for p in (white, *corners)) > 0.001 and (
        min(sides) > 1e-4 or max(sides) < -1e-4
    )


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _exif(picture: Image.Image) -> SaidSpace:
    """Of a camera: Adobe RGB is an uncalibrated space with the interoperability index R03."""
    space, index = None, ""
    with suppress(*BAD_EXIF):
        exif = picture.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = str(exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex, ""))
    if space == 2 or (space == 0xFFFF and index.startswith("R03")):
        return SaidSpace(Space(_ADOBE, _D65, _ADOBE_GAMMA))
    if space == 0xFFFF:
        return SaidSpace(note="colours of a space that EXIF does not name")
    return SaidSpace()


def _cicp(path: Path) -> tuple[int, int] | None:
    """Code points of primaries and curve in a PNG."""
    for kind, size, file in islice(png_chunks(path), _CHUNKS):
        if kind == b"cICP" and size == 4:
            said = file.read(2)
            return (said[0], said[1]) if len(said) == 2 else None
        if kind == b"IDAT":
            return None
    return None


def _nclx(path: Path) -> tuple[int, int] | None:
    """The same of the first picture in an AVIF or HEIC."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    at = head.find(b"colrnclx") + 8
    if at < 8 or len(head) < at + 4:
        return None
    primaries, curve = struct.unpack(">HH", head[at : at + 4])
    return primaries, curve


@lru_cache(maxsize=8)
def profile(space: Space, *, grey: bool = False) -> bytes:
    """A profile of ICC version 2 for RGB pixels of a space, or for grey ones."""
    levels = [round(65535 * _light(i / 1023, space.gamma)) for i in range(1024)]
    curve = b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *levels)
    tags = {b"wtpt": _xyz_tag(_D50)}
    if grey:
        return _file(b"GRAY", {**tags, b"kTRC": curve})
    matrix = _adapted(space)
    for column, colour in enumerate((b"r", b"g", b"b")):
        tags[colour + b"XYZ"] = _xyz_tag(tuple(row[column] for row in matrix))
        tags[colour + b"TRC"] = curve
    return _file(b"RGB ", tags)


_Row = tuple[float, ...]
_Matrix = tuple[_Row, ...]
_D50: _Row = (0.9642, 1.0, 0.8249)
_BRADFORD: _Matrix = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)


def _light(level: float, gamma: float) -> float:
    """The light of a level, both from 0 to 1."""
    if gamma == _SRGB_CURVE:
        return level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
    if gamma == _FILM_CURVE:
        return level / 4.5 if level < 0.081 else ((level + 0.099) / 1.099) ** (1 / 0.45)
    return float(level**gamma)


def _adapted(space: Space) -> _Matrix:
    """What turns light of a space into XYZ under D50, by Bradford."""
    columns = _transposed(tuple(_xyz(point) for point in space.primaries))
    white = _xyz(space.white)
    shares = _times(_inverse(columns), white)
    own = tuple(tuple(a * b for a, b in zip(row, shares, strict=True)) for row in columns)
    here, there = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    cones = tuple(tuple(there[i] / here[i] * one for one in row) for i, row in enumerate(_BRADFORD))
    return _product(_product(_inverse(_BRADFORD), cones), own)


def _xyz(point: Point) -> _Row:
    x, y = point
    return (x / y, 1.0, (1 - x - y) / y)


def _times(matrix: _Matrix, vector: _Row) -> _Row:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _product(left: _Matrix, right: _Matrix) -> _Matrix:
    return _transposed(tuple(_times(left, column) for column in _transposed(right)))


def _transposed(matrix: _Matrix) -> _Matrix:
    return tuple(zip(*matrix, strict=True))


def _inverse(matrix: _Matrix) -> _Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    rows = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    whole = a * rows[0][0] + b * rows[1][0] + c * rows[2][0]
    return tuple(tuple(one / whole for one in row) for row in rows)


def _xyz_tag(values: _Row) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _file(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    text = b"as a picture names it\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        **tags,
    }
    body, table, at = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += padded
    size = at + len(body)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", size, b"lcms", 0x02100000, b"mntr", space, b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + body
