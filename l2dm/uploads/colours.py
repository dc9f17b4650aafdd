"""A decoded picture as upright 8-bit RGB in sRGB, as a viewer shows it. Pillow only.

EXIF rotation applied, colour profiles and colour spaces that are named without one applied, 16 bits
scaled, transparent things put on a ground that keeps them visible.
"""

import io
from contextlib import suppress
from functools import lru_cache

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps

from l2dm.errors import BadUpload
from l2dm.uploads import spaces

MAX_PROFILE = 16_000_000  # bytes; those of presses have three million
_AS_SRGB = 2  # levels of 255 that a profile may differ from sRGB and still be called it
_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}
_GROUNDS = (255, 128, 0)  # what transparent things may lie on; the first that shows them
_SEEN = 40  # levels in any colour from which a pixel is told from its ground
_ENOUGH = 256  # pixels a side on which that is counted
_SHOWN = 0.75  # share of a thing that must be told from white, so that it stays on white


def upright_rgb(picture: Image.Image, name: str, space: spaces.Space | None = None) -> Image.Image:
    """The same as 8-bit RGB. name: of the file, for messages. Raises BadUpload.

    space: of its colours, where something else than its profile counts (`spaces.said`).
    """
    profile = space or picture.info.get("icc_profile")
    upright = _upright(picture)
    if upright.mode.startswith("I"):
        upright = _eight_bits(upright, name)
    if upright.mode == "F":
        raise _unknown_range(name, "floating point")
    if upright.has_transparency_data:
        layer = upright if upright.mode == "RGBA" else upright.convert("RGBA")
        alpha = layer.getchannel("A")
        colours = upright.getchannel("L") if upright.mode == "LA" else layer.convert("RGB")
        del upright, layer  # each is as large as the picture
        return _on_a_ground(_srgb(colours, profile), alpha)
    return _srgb(upright, profile)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture when it is turned as its EXIF says."""
    return picture.size[::-1] if _orientation(picture) > 4 else picture.size


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says; the picture itself where that says nothing."""
    return ImageOps.exif_transpose(picture) if _orientation(picture) > 1 else picture


def _orientation(picture: Image.Image) -> int:
    found: object = None
    with suppress(*spaces.BAD_EXIF):  # viewers show a picture whose EXIF is torn as it lies
        found = picture.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and found in range(2, 9) else 1


def _srgb(picture: Image.Image, profile: object) -> Image.Image:
    """Apply a profile that is meant for such pixels and that can be read; viewers ignore others."""
    if picture.mode not in _SPACES:
        picture = picture.convert("RGB")
    transform = None
    if isinstance(profile, spaces.Space):
        profile = spaces.profile(profile, grey=picture.mode == "L")
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE:
        transform = _to_srgb(profile, picture.mode)
    elif picture.mode == "LAB":
        transform = _to_srgb(b"", "LAB")
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    return ImageCms.applyTransform(picture, transform) or picture


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pixels of a profile into sRGB; None if they are that, or it is not for them."""
    try:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        if not profile:
            return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), srgb, mode)
        inside = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if inside.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = _transform(inside, srgb, mode)
        if mode == "RGB":
            cube = _cube()
            seen = ImageCms.applyTransform(cube, transform)
            if seen is None or _largest(ImageChops.difference(cube, seen)) <= _AS_SRGB:
                return None
        return transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None


def _transform(
    inside: ImageCms.ImageCmsProfile, srgb: ImageCms.ImageCmsProfile, mode: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        inside,
        srgb,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _cube() -> Image.Image:
    """Six levels of each colour, 216 pixels."""
    levels = range(0, 256, 51)
    pixels = bytes(level for r in levels for g in levels for b in levels for level in (r, g, b))
    return Image.frombytes("RGB", (36, 6), pixels)


def _on_a_ground(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """On white if most of the thing shows there; else on what shows most of it."""
    shown, scale = {}, max(1, min(colours.size) // _ENOUGH)
    seen, covered = colours.reduce(scale), alpha.reduce(scale)
    for level in _GROUNDS:
        shown[level] = _shown(seen, covered, level)
        if shown[level] >= _SHOWN:
            break
    ground = max(shown, key=lambda level: shown[level])
    result = Image.new("RGB", colours.size, (ground,) * 3)
    result.paste(colours, mask=alpha)
    return result


def _shown(colours: Image.Image, alpha: Image.Image, level: int) -> float:
    """Share of what is not transparent that is told from a grey ground, 1 if nothing is."""
    bands = [
        band.point([255 if abs(value - level) >= _SEEN else 0 for value in range(256)])
        for band in colours.split()
    ]
    told = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    whole = sum(i * n for i, n in enumerate(alpha.histogram()))
    if not whole:
        return 1.0
    return sum(i * n for i, n in enumerate(alpha.histogram(told))) / whole


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


def _largest(picture: Image.Image) -> int:
    return max(int(high) for _, high in picture.getextrema())  # type: ignore[misc]
