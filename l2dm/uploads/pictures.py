"""One picture file of an upload: opened, checked, decoded, seen. Pillow only, no torch.

The checks run on the header first (bytes, pixels, frames, scans), so nothing large is decoded
before it was found small enough. Every refusal is a sentence: expected, found, where, what to do.
What is decoded is read by `reader.py` in a process of its own, whose time and memory are bounded.
"""

import errno
import struct
import warnings
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from l2dm.errors import BadUpload
from l2dm.uploads import crop, promises, spaces
from l2dm.uploads.colours import upright_rgb, upright_size
from l2dm.uploads.crop import Cut
from l2dm.uploads.likeness import FINE, Appearance, appearance

if TYPE_CHECKING:  # pydantic is slow to import, and every check starts a process
    from l2dm.spec import IntakeSpec

# Other plugins of Pillow stay shut: some start programs (EPS), none is what a camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
HEIC = "HEIF"  # as the optional pillow-heif calls it
SUFFIXES = {name: name.lower() for name in FORMATS} | {"JPEG": "jpg", "TIFF": "tif", HEIC: "heic"}

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
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)


# What the system says of a file that it does not give, whatever is in it. A strange picture has
# others: it leads a decoder to a place before the file's beginning (EINVAL), for instance.
_WITHHELD = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),
}


@dataclass(frozen=True)
class SeenPicture:
    """What was seen of a picture.

    square: RGB bytes, (side, side, 3), of what the cut leaves. note: what its file says of its
    colours and was not applied, "" if nothing.
    """

    look: Appearance
    cut: Cut
    square: bytes = b""
    note: str = ""


def read(path: Path, spec: "IntakeSpec", side: int = 0) -> SeenPicture:
    """Check a picture, decoding all of it once. side: of the square that is wanted; 0: none.

    Raises BadUpload, and OSError for a file that the system does not give.
    """
    found = _decoded(path, spec, whole=side > 0)
    cut = crop.square(found.small, found.size)
    if found.whole is None:
        return SeenPicture(_appearance(found), cut, note=found.note)
    square = found.whole.resize((side, side), Image.Resampling.LANCZOS, box=cut.box)
    return SeenPicture(_appearance(found), cut, square.tobytes(), found.note)


def pixels(path: Path, spec: "IntakeSpec") -> int:
    """How many its header promises; nothing is decoded. Raises BadUpload."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _opened(path, spec) as picture:
                return picture.width * picture.height
        except _DAMAGE as error:
            raise _damaged(path, error) from error


@dataclass(frozen=True)
class _Decoded:
    """Upright 8-bit RGB in sRGB, reduced as far as a look needs it, and whole if it is wanted.

    note: as `SeenPicture` has it.
    """

    format: str
    size: tuple[int, int]
    small: Image.Image
    whole: Image.Image | None
    note: str


def _decoded(path: Path, spec: "IntakeSpec", *, whole: bool) -> _Decoded:
    with warnings.catch_warnings():
        # Pillow warns about what is checked here (size) or does not matter (odd EXIF entries).
        warnings.simplefilter("ignore")
        try:
            picture = promises.load(lambda: _opened(path, spec), path)
            space, note = _said_space(picture, path, spec)
            if picture.format in ("JPEG", "MPO"):
                small = upright_rgb(_reduced(picture), path.name, space)
                size = upright_size(picture)
                full = upright_rgb(picture, path.name, space) if whole else None
                return _Decoded("JPEG", size, small, full, note)
            kind, full = str(picture.format), upright_rgb(picture, path.name, space)
            return _Decoded(kind, full.size, _reduced(full), full if whole else None, note)
        except _DAMAGE as error:
            raise _damaged(path, error) from error


def _said_space(picture: Image.Image, path: Path, spec: "IntakeSpec") -> spaces.SaidSpace:
    """The colour space that a decoded picture names. Of a TIFF its open file has to be asked."""
    if picture.format != "TIFF":
        return spaces.said(picture, path)
    with _opened(path, spec) as again:
        return spaces.said(again, path)


def _reduced(picture: Image.Image) -> Image.Image:
    return picture.reduce(max(1, min(picture.size) // (2 * FINE)))


def _appearance(found: _Decoded) -> Appearance:
    return appearance(found.format, found.small, found.size)


def _opened(path: Path, spec: "IntakeSpec") -> Image.Image:
    size = path.stat().st_size
    if size > spec.max_bytes:
        raise BadUpload(
            f"picture {path.name!r}: expected at most {spec.max_bytes:,} bytes, found {size:,}; "
            "save it smaller or leave it out"
        )
    try:
        picture = Image.open(path, formats=formats())
    except UnidentifiedImageError as error:
        raise BadUpload(
            f"picture {path.name!r}: expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} "
            f"picture, found {_guess(path)} or take it out of the folder"
        ) from error
    except Image.DecompressionBombError as error:
        raise BadUpload(
            f"picture {path.name!r}: expected at most {spec.max_pixels:,} pixels, found an image "
            f"bomb ({error}); leave it out"
        ) from error
    try:
        _check_header(picture, path.name, spec)
        if picture.format in ("JPEG", "MPO"):
            promises.require_few_scans(path, picture.width * picture.height)
    except BaseException:
        picture.close()
        raise
    return picture


def formats() -> tuple[str, ...]:
    """What can be read here: HEIC, too, where the extra `heic` is installed.

    No picture of an upload is opened with others: some plugins of Pillow start programs.
    """
    if find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return (*FORMATS, HEIC)


def _check_header(picture: Image.Image, name: str, spec: "IntakeSpec") -> None:
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
    # A phone's MPO is a JPEG with a depth map or a preview behind it, not an animation. Of a HEIC
    # with several pictures the first is the one that is meant.
    if picture.format not in ("MPO", HEIC) and getattr(picture, "is_animated", False):
        problems.append(
            f"picture {name!r}: expected one still picture, found an animated or multi-page "
            f"{picture.format}; save the frame you mean"
        )
    if problems:
        raise BadUpload(problems)


def _guess(path: Path) -> str:
    """What a file is that cannot be opened, and what to do."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file; convert it"
    if head[4:8] != b"ftyp":
        return "something else; convert it"
    brands = head[8 : max(12, int.from_bytes(head[:4], "big"))]
    if b"avi" in brands:
        return "a broken AVIF picture; convert it"
    if any(brand in brands for brand in (b"hei", b"hev", b"mif", b"msf")):
        install = "" if find_spec("pillow_heif") else " (the extra l2dm[heic] reads it)"
        return f"a HEIC picture; convert it{install}"
    return "a film; convert it"


def _damaged(path: Path, error: Exception) -> Exception:
    """What a file is that broke a decoder; the error itself where the system did not give it."""
    if isinstance(error, OSError) and error.errno in _WITHHELD:
        return error
    return BadUpload(
        f"picture {path.name!r}: expected a whole picture, found it truncated or corrupt "
        f"({error or type(error).__name__}); copy it again or leave it out"
    )
