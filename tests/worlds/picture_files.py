"""Picture files of every kind, written and opened again."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from l2dm.spec import IntakeSpec
from l2dm.uploads.likeness import Appearance
from l2dm.uploads.pictures import _decoded, read

SPEC = IntakeSpec()


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with structure: forty coloured boxes."""
    rng = random.Random(seed)
    picture = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        ink = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((x, y, x + size[0] // 4, y + size[1] // 4), fill=ink)
    return picture


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def open_picture(path: Path, spec: IntakeSpec) -> Image.Image:
    """What checking shows of a picture: upright 8-bit RGB."""
    picture = _decoded(path, spec, whole=True).whole
    assert picture is not None
    return picture


def look(path: Path, spec: IntakeSpec) -> Appearance:
    """How a picture looks to whoever checks it."""
    return read(path, spec).look


def opened(picture: Image.Image, path: Path, **options) -> np.ndarray:
    result = open_picture(saved(picture, path, **options), SPEC)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


def flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (64, 64), colour)


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum
