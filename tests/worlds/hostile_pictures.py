"""Picture files that are torn, lie, or want too much: made by a seed, the same every time."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tests.worlds.colour_profiles import SPACES, grey_profile, profile
from tests.worlds.picture_files import chunk, scene

SIDE = 128  # of the pictures that the others are made of
REFUSED, HONEST, ACCEPTED, ANY = "refused", "honest", "accepted", "any"


class Made(NamedTuple):
    """One hostile file. due: it has to be refused; be refused or whole; or be accepted; or nobody
    can know, since every byte is a picture.

    kin: a good file with the pixels that it would have if it were whole; "" if nobody knows.
    """

    path: Path
    what: str
    due: str
    kin: bytes = b""


Rule = Callable[[random.Random, str], tuple[bytes, str, str, bytes]]
KINDS: dict[str, tuple[str, dict]] = {
    "png": ("png", {}),
    "jpg": ("jpg", {"quality": 85}),
    "progressive.jpg": ("jpg", {"quality": 85, "progressive": True}),
    "webp": ("webp", {"quality": 85}),
    "lossless.webp": ("webp", {"lossless": True}),
    "gif": ("gif", {}),
    "bmp": ("bmp", {}),
    "tif": ("tif", {}),
    "lzw.tif": ("tif", {"compression": "tiff_lzw"}),
    "deflate.tif": ("tif", {"compression": "tiff_deflate"}),
    "jpeg.tif": ("tif", {"compression": "jpeg"}),
    "avif": ("avif", {"quality": 85}),
}
FORMATS = {"jpg": "JPEG", "tif": "TIFF"}


def good(kind: str, number: int, **more) -> bytes:
    """A whole picture of one of KINDS."""
    suffix, options = KINDS[kind]
    buffer = io.BytesIO()
    picture = scene(number, (SIDE, SIDE))
    picture.save(buffer, FORMATS.get(suffix, suffix.upper()), **options, **more)
    return buffer.getvalue()


def make(folder: Path, seed: int) -> Made:
    """The hostile picture of a seed. Every rule meets every kind in turn."""
    rng = random.Random(seed)
    rule = RULES[seed % len(RULES)]
    kind = sorted(KINDS)[(seed // len(RULES)) % len(KINDS)]
    data, what, due, kin = rule(rng, kind)
    suffix = KINDS[kind][0]
    path = folder / f"{seed}.{suffix}"
    path.write_bytes(data)
    return Made(path, f"{rule.__name__} {kind}: {what}", due, kin)


def flipped(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """A few bytes are others."""
    data = bytearray(good(kind, rng.randrange(5)))
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 3, 20)))]
    for at in places:
        data[at] = rng.randrange(256)
    return bytes(data), f"at {places[:3]}", HONEST, b""


def flipped_head(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The same in the first bytes, where sizes and types stand."""
    data = bytearray(good(kind, rng.randrange(5)))
    places = [rng.randrange(4, min(200, len(data))) for _ in range(rng.choice((1, 2, 4)))]
    for at in places:
        data[at] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(data), f"at {places}", HONEST, b""


def cut(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The end is missing."""
    data = good(kind, rng.randrange(5))
    share = rng.choice((0.02, 0.3, 0.5, 0.7, 0.9, 0.97))
    return data[: int(len(data) * share)], f"after {share:.0%}", HONEST, data


def emptied(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The end is there, and nothing in it."""
    data = good(kind, rng.randrange(5))
    at = int(len(data) * rng.choice((0.4, 0.6, 0.8)))
    filler = rng.choice((b"\0", b"\xff", b"\x80"))
    # Of these any bytes are pixels: they are not compressed, or without sums and end marks.
    due = ANY if kind in ("bmp", "tif", "webp", "avif") else HONEST
    kin = b"" if due == ANY else data
    return data[:at] + filler * (len(data) - at), f"{filler!r} from {at}", due, kin


def spliced(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The head of one picture and the tail of another, perhaps of another kind."""
    other = rng.choice((kind, rng.choice(sorted(KINDS))))
    one, two = good(kind, 0), good(other, 1)
    share = rng.uniform(0.2, 0.8)
    data = one[: int(len(one) * share)] + two[int(len(two) * share) :]
    return data, f"with {other} at {share:.0%}", HONEST, b""


def taller(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The header promises more rows than there are."""
    data, times = good(kind, rng.randrange(5)), rng.choice((2, 3, 100))
    # A decoder of AVIF stretches its rows to the size that stands in the box.
    due = HONEST if kind == "avif" else REFUSED
    return _sized(data, SIDE, SIDE * times), f"{times} times", due, b""


def vast(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """The header promises more pixels than anybody may send."""
    data = good(kind, rng.randrange(5))
    side = rng.choice((9000, 16383, 65535))
    return _sized(data, side, side), f"{side} a side", REFUSED, b""


def _sized(data: bytes, width: int, height: int) -> bytes:
    """A file with other numbers for its size, wherever they stand in that format."""
    both = struct.Struct
    if data.startswith(b"\x89PNG"):
        head = struct.pack(">II", width, height) + data[24:29]
        return data[:8] + chunk(b"IHDR", head) + data[33:]
    if data.startswith(b"\xff\xd8"):
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        return data[:at] + both(">HH").pack(height, width) + data[at + 4 :]
    if data.startswith(b"GIF"):
        size = both("<HH").pack(width, height)
        at = data.index(b"\x2c\0\0\0\0", 13) + 5
        return data[:6] + size + data[10:at] + size + data[at + 4 :]
    if data.startswith(b"BM"):
        return data[:18] + both("<ii").pack(width, height) + data[26:]
    if data[:4] == b"II*\0":
        return _tiff_sized(data, {256: width, 257: height})
    if data[8:12] == b"WEBP":
        return _webp_sized(data, min(width, 16383), min(height, 16383))
    at = data.index(b"ispe") + 8
    return data[:at] + both(">II").pack(width, height) + data[at + 8 :]


def _tiff_sized(data: bytes, values: dict[int, int]) -> bytes:
    """Tags of the first directory, as 32-bit numbers."""
    changed = bytearray(data)
    at = int.from_bytes(data[4:8], "little")
    for i in range(int.from_bytes(data[at : at + 2], "little")):
        entry = at + 2 + 12 * i
        tag = int.from_bytes(data[entry : entry + 2], "little")
        if tag in values:
            changed[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, values[tag])
    return bytes(changed)


def _webp_sized(data: bytes, width: int, height: int) -> bytes:
    if data[12:16] == b"VP8L":
        bits = (width - 1) | (height - 1) << 14 | int.from_bytes(data[21:25], "little") >> 28 << 28
        return data[:21] + struct.pack("<I", bits) + data[25:]
    return data[:26] + struct.pack("<HH", width, height) + data[30:]


def bomb(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """Little that becomes much: pixels, profiles, texts, scans."""
    names = sorted(BOMBS)
    name = names[(sorted(KINDS).index(kind) + rng.randrange(2)) % len(names)]
    return BOMBS[name](), name, REFUSED if name in SURE else ANY, b""


def _png(width: int, height: int, kind: bytes, rows: bytes, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">II", width, height) + kind)
    body = chunk(b"IDAT", rows)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    pack = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [pack.compress(block) for _ in range(count >> 20)]
    return b"".join((*parts, pack.compress(bytes(count & (1 << 20) - 1)), pack.flush()))


def _scans(count: int) -> bytes:
    data = good("progressive.jpg", 0)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def _grey_png(*chunks: bytes) -> bytes:
    rows = zlib.compress(b"".join(b"\0" + bytes(range(SIDE)) for _ in range(SIDE)))
    return _png(SIDE, SIDE, b"\x08\0\0\0\0", rows, *chunks)


def _wide_png() -> bytes:
    return _png(5000, 5000, b"\x10\6\0\0\0", _zeros(5000 * 40001))


BOMBS: dict[str, Callable[[], bytes]] = {
    "100,000 x 100,000 pixels of one bit": lambda: _png(10**5, 10**5, b"\1\0\0\0\0", _zeros(10**6)),
    "5,000 x 5,000 pixels of 64 bits": _wide_png,
    "2,147,483,647 pixels in a row": lambda: _png(2**31 - 1, 1, b"\1\0\0\0\0", _zeros(1000)),
    "a profile of 300 MB": lambda: _grey_png(chunk(b"iCCP", b"a\0\0" + _zeros(300 << 20))),
    "a text of 300 MB": lambda: _grey_png(chunk(b"zTXt", b"a\0\0" + _zeros(300 << 20))),
    "a thousand texts": lambda: _grey_png(*[chunk(b"zTXt", b"a\0\0" + _zeros(1 << 20))] * 1000),
    "100,000 chunks": lambda: _grey_png(chunk(b"tEXt", b"a\0b") * 100_000),
    "a chunk of 4 GB": lambda: _grey_png(b"\xff\xff\xff\xfftEXt"),
    "5,000 scans": lambda: _scans(5000),
    "pixels behind the last row": lambda: _png(SIDE, SIDE, b"\x08\0\0\0\0", _zeros(200 << 20)),
}  # fmt: skip
SURE = {  # all that no reading can make sense of
    "100,000 x 100,000 pixels of one bit",
    "2,147,483,647 pixels in a row",
    "5,000 scans",
    "a chunk of 4 GB",
}


def animated(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """Several pictures in one file."""
    suffix, options = KINDS[kind]
    if suffix in ("jpg", "bmp"):
        suffix, options = "gif", {}
    buffer = io.BytesIO()
    frames = [scene(i, (SIDE, SIDE)) for i in range(rng.choice((2, 3, 5)))]
    frames[0].save(
        buffer, FORMATS.get(suffix, suffix.upper()), save_all=True, append_images=frames[1:],
        **options,
    )  # fmt: skip
    return buffer.getvalue(), f"{len(frames)} frames of {suffix}", REFUSED, b""


def turned(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """EXIF that says how to turn it, or nonsense; a viewer shows all of them."""
    exif = Image.Exif()
    exif[0x0112] = orientation = rng.choice((*range(1, 9), 0, 9, 255, 65535))
    if rng.random() < 0.5:
        exif[0x010E] = "x" * rng.randrange(60_000)
    if KINDS[kind][0] in ("gif", "bmp", "tif"):
        kind = rng.choice(("jpg", "png", "webp", "avif"))
    raw = exif.tobytes()
    if rng.random() < 0.4 and kind != "avif":  # torn; of an AVIF Pillow writes none
        raw = raw[:6] + bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
    return good(kind, rng.randrange(5), exif=raw), f"{orientation}", ACCEPTED, b""


def profiled(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """A profile that is torn, of other pixels, or vast; a viewer shows all of them."""
    inside = bytearray(profile(rng.choice(sorted(SPACES))))
    how = rng.choice(("flipped", "cut", "grey", "noise", "much"))
    if how == "flipped":
        for _ in range(rng.choice((1, 5, 50))):
            inside[rng.randrange(len(inside))] = rng.randrange(256)
    elif how == "cut":
        del inside[rng.randrange(len(inside)) :]
    elif how == "grey":
        inside = bytearray(grey_profile(rng.choice((0.01, 1.0, 100.0))))
    else:
        inside = bytearray(rng.randbytes(rng.randrange(1, 3000 if how == "noise" else 400_000)))
    if KINDS[kind][0] in ("gif", "bmp"):
        kind = "png"
    more = {"icc_profile": bytes(inside) or b"\0"}
    return good(kind, rng.randrange(5), **more), how, ACCEPTED, b""


def pretended(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """No picture at all, under the name of one."""
    bodies = (
        b"", b"\0", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", b"PK\3\4" + bytes(99),
        b"\x7fELF" + bytes(99), b"<?php system($_GET[0]);", b"#!/bin/sh\nid\n",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0\x08\0\0\0\0\0", b"BM",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"\0\0\0\x1cftypavif", b"8BPS\0\1", b"\0\0\1\0\1\0", b"P6 99999 99999 255\n", b"SIMPLE  =",
        b"\0\0\0\x20ftypisom" + bytes(200), rng.randbytes(5000),
    )  # fmt: skip
    body = rng.choice(bodies)
    return body, repr(body[:20]), REFUSED, b""


def odd_chunks(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """Parts of a file in another order, twice, or none."""
    data = good("png", rng.randrange(5))
    parts, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big") + 12
        parts.append(data[at : at + size])
        at += size
    how = rng.choice(("shuffled", "twice", "one less", "wrong sum", "interlaced", "palette"))
    if how == "shuffled":
        rng.shuffle(parts)
    elif how == "twice":
        parts.insert(rng.randrange(len(parts)), rng.choice(parts))
    elif how == "one less":
        del parts[rng.randrange(len(parts))]
    elif how == "wrong sum":
        i = rng.randrange(len(parts))
        parts[i] = parts[i][:-4] + rng.randbytes(4)
    else:
        head = bytearray(parts[0][8:-4])
        head[12 if how == "interlaced" else 9] = 1 if how == "interlaced" else 3
        parts[0] = chunk(b"IHDR", bytes(head))
    return data[:8] + b"".join(parts), how, HONEST, b""


def directories(rng: random.Random, kind: str) -> tuple[bytes, str, str, bytes]:
    """Tags of a TIFF with numbers out of all reason."""
    data = good(rng.choice(("tif", "lzw.tif", "deflate.tif", "jpeg.tif")), rng.randrange(5))
    tag = rng.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 339))
    value = rng.choice((0, 1, 2, 3, 65535, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
    return _tiff_sized(data, {tag: value}), f"tag {tag} is {value}", HONEST, b""


RULES: tuple[Rule, ...] = (
    flipped, cut, taller, emptied, flipped_head, spliced, vast, turned, animated, profiled,
    pretended, odd_chunks, directories, bomb,
)  # fmt: skip
