"""Picture files of an upload: opened, checked, made RGB, and compared. Pillow only, no torch.

The checks run on the header first (bytes, pixels, frames), so nothing large is decoded before it
was found small enough. Every refusal is a sentence: expected, found, where, what to do.
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from l2dm.errors import BadUpload
from l2dm.spec import IntakeSpec

# Other plugins of Pillow stay shut: some start programs (EPS), none is what a camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}

# What Pillow raises on damaged files besides OSError, found by flipping bytes in every format.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
)

# Measured on 28,500 pairs of pocket photographs and on real ones: different pictures differ in
# colour by at least 0.14 of their contrast, re-encoded (quality >= 75) and smoothly resized ones
# by at most 0.06 as a rule. A hash alone takes 30 of those pairs for one picture.
_SAME_COLOURS = 0.07
_SIMILAR_COLOURS = 0.12
_THUMB = 16  # pixels a side of the colour thumbnail
_ENOUGH = 128  # pixels a side that hash and thumbnail need at most


@dataclass(frozen=True)
class Appearance:
    """How a picture looks, small enough to compare with twenty others.

    format: one of FORMATS. bits: 64 horizontal + 64 vertical gradient signs (dHash).
    colours: (16*16*3) bytes. contrast: mean absolute distance of `colours` from their mean, levels.
    """

    format: str
    bits: int
    colours: bytes
    contrast: float


def look(
    path: Path, spec: IntakeSpec, see: Callable[[Image.Image], object] | None = None
) -> Appearance:
    """Check a picture, decoding all of it once, and say how it looks. Raises BadUpload.

    see: is given the picture as upright 8-bit RGB: EXIF rotation applied, alpha composited on
    white; grey, palette, CMYK and 16-bit pictures converted.
    """
    with warnings.catch_warnings():
        # Pillow warns about what is checked here (size) or does not matter (odd EXIF entries).
        warnings.simplefilter("ignore")
        try:
            picture = _decoded(path, spec)
            kind = "JPEG" if picture.format == "MPO" else str(picture.format)
            small = _upright_rgb(_reduced(picture) if kind == "JPEG" else picture, path.name)
            whole = _upright_rgb(picture, path.name) if see and kind == "JPEG" else small
        except _DAMAGE as error:
            raise _damaged(path, error) from error
    if see:
        see(whole)
    return Appearance(kind, _gradients(small), *_colours(small))


def same(one: Appearance, other: Appearance, near_bits: int) -> bool:
    """Whether two looks are one picture, perhaps re-encoded or resized.

    Either the hash is within `near_bits` and the colours are similar, or the colours are the same
    and the hash is not far: small pictures lose hash bits when resized, but not their colours.
    """
    apart = (one.bits ^ other.bits).bit_count()
    if apart > 4 * near_bits:
        return False
    pairs = zip(one.colours, other.colours, strict=True)
    difference = sum(abs(a - b) for a, b in pairs) / len(one.colours)
    contrast = max(1.0, min(one.contrast, other.contrast))  # one level: plain pictures have none
    return difference <= contrast * (_SIMILAR_COLOURS if apart <= near_bits else _SAME_COLOURS)


def repeats(looks: Mapping[str, Appearance], near_bits: int) -> list[tuple[str, str]]:
    """Every name whose picture an earlier name shows already, as (earlier, later)."""
    found = []
    names = list(looks)
    for i, later in enumerate(names):
        for earlier in names[:i]:
            if same(looks[earlier], looks[later], near_bits):
                found.append((earlier, later))
                break
    return found


def _decoded(path: Path, spec: IntakeSpec) -> Image.Image:
    size = path.stat().st_size
    if size > spec.max_bytes:
        raise BadUpload(
            f"picture {path.name!r}: expected at most {spec.max_bytes:,} bytes, found {size:,}; "
            "save it smaller or leave it out"
        )
    try:
        picture = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadUpload(
            f"picture {path.name!r}: expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} "
            f"picture, found {_guess(path)}; convert it or take it out of the folder"
        ) from error
    except Image.DecompressionBombError as error:
        raise BadUpload(
            f"picture {path.name!r}: expected at most {spec.max_pixels:,} pixels, found an image "
            f"bomb ({error}); leave it out"
        ) from error
    with picture:  # closes the file, keeps the pixels
        _check_header(picture, path.name, spec)
        picture.load()
    return picture


def _check_header(picture: Image.Image, name: str, spec: IntakeSpec) -> None:
    width, height = picture.size
    problems = []
    if width * height > spec.max_pixels:
        problems.append(
            f"picture {name!r}: expected at most {spec.max_pixels:,} pixels, found "
            f"{width} x {height} = {width * height:,}; save it smaller or leave it out"
        )
    if min(width, height) < spec.min_side:
        problems.append(
            f"picture {name!r}: expected at least {spec.min_side} pixels on each side, found "
            f"{width} x {height}; take a larger one"
        )
    # A phone's MPO is a JPEG with a depth map or a preview behind it, not an animation.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        problems.append(
            f"picture {name!r}: expected one still picture, found an animated or multi-page "
            f"{picture.format}; save the frame you mean"
        )
    if problems:
        raise BadUpload(problems)


def _guess(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif"):
        return "a HEIC picture"
    return "something else"


def _damaged(path: Path, error: BaseException) -> BadUpload:
    return BadUpload(
        f"picture {path.name!r}: expected a whole picture, found it truncated or corrupt "
        f"({error or type(error).__name__}); copy it again or leave it out"
    )


def _upright_rgb(picture: Image.Image, name: str) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        upright = _eight_bits(upright, name)
    if upright.mode == "F":
        raise _unknown_range(name, "floating point")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGB", layer.size, "white")
        upright.paste(layer, mask=layer.getchannel("A"))
    return upright.convert("RGB")


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    """16-bit grey to 8-bit grey; Pillow's own conversion cuts everything above 255 off."""
    wide = picture.convert("I")
    low, high = (int(value) for value in wide.getextrema() if not isinstance(value, tuple))
    if low < 0 or high > 65_535:
        raise _unknown_range(name, "32-bit")
    return wide.point(lambda value: value * (1 / 257) + 0.5).convert("L")  # 65535 = 257 * 255


def _unknown_range(name: str, found: str) -> BadUpload:
    return BadUpload(
        f"picture {name!r}: expected 8-bit or 16-bit pixels, found {found} ones, whose range no "
        "one can know; save it as an 8-bit PNG or JPEG"
    )


def _reduced(picture: Image.Image) -> Image.Image:
    return picture.reduce(max(1, min(picture.size) // _ENOUGH))


def _gradients(picture: Image.Image) -> int:
    grey = picture.convert("L")
    across = grey.resize((9, 8), Image.Resampling.BILINEAR).tobytes()
    down = grey.resize((8, 9), Image.Resampling.BILINEAR).tobytes()
    signs = [across[9 * y + x] < across[9 * y + x + 1] for y in range(8) for x in range(8)]
    signs += [down[8 * y + x] < down[8 * (y + 1) + x] for y in range(8) for x in range(8)]
    return sum(sign << i for i, sign in enumerate(signs))


def _colours(picture: Image.Image) -> tuple[bytes, float]:
    colours = picture.resize((_THUMB, _THUMB), Image.Resampling.BILINEAR).tobytes()
    means = [sum(colours[c::3]) / (_THUMB * _THUMB) for c in range(3)]
    spread = sum(abs(value - means[i % 3]) for i, value in enumerate(colours))
    return colours, spread / len(colours)
