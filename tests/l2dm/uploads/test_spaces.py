"""Colour spaces that are named without a profile: applied, or told."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from l2dm.spec import IntakeSpec
from l2dm.uploads.check import check_pictures
from l2dm.uploads.pictures import read
from tests.worlds.colour_profiles import profile
from tests.worlds.picture_files import SPEC, chunk, open_picture, opened, saved, scene

P3, ADOBE = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
SRGB, D65 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06), (0.3127, 0.3290)


def png(picture: Image.Image, path: Path, *chunks: bytes, **options: object) -> Path:
    """A PNG with chunks behind its header."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 * gamma)))


def chrm(primaries: tuple[float, ...], white: tuple[float, ...] = D65) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * one) for one in white + primaries)))


def cicp(primaries: int, curve: int) -> bytes:
    return chunk(b"cICP", bytes((primaries, curve, 0, 1)))


def camera(space: int, index: str = "") -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    return exif


def distance(path: Path, inside: bytes | None) -> float:
    """Of what is read to what viewers show of the same pixels under a profile, in levels."""
    with Image.open(path) as picture:
        shown = picture.convert("RGB")
    if inside is not None:
        there, srgb = ImageCms.ImageCmsProfile(io.BytesIO(inside)), ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(shown, there, srgb, renderingIntent=1)
    found = np.asarray(open_picture(path, SPEC)).astype(int)
    return float(np.abs(found - np.asarray(shown)).mean())


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
@pytest.mark.parametrize(("space", "index"), [(0xFFFF, "R03"), (2, "")])
def test_adobe_rgb_of_a_camera_that_says_so_in_exif_alone_is_applied(
    suffix, space, index, tmp_path
):
    options = {"exif": camera(space, index)}
    if suffix == "tif":
        tags = ImageFileDirectory_v2()
        tags.tagtype[0x8769] = 4
        tags[0x8769] = {0xA001: space, 0xA005: {1: index}}
        options = {"tiffinfo": tags}
    path = saved(scene(0), tmp_path / f"a.{suffix}", **options)
    assert distance(path, profile("adobe-rgb")) < 0.5
    assert distance(path, None) > 3


def test_srgb_of_a_camera_and_a_profile_beside_exif_are_what_counts(tmp_path):
    said = camera(0xFFFF, "R03")
    assert distance(saved(scene(0), tmp_path / "a.jpg", exif=camera(1, "R98")), None) == 0
    inside = profile("display-p3")
    path = saved(scene(0), tmp_path / "b.jpg", exif=said, icc_profile=inside)
    assert distance(path, inside) < 0.5


@pytest.mark.parametrize(
    ("chunks", "space"),
    [
        ((cicp(12, 13), gama(1.0)), "display-p3"),
        ((chrm(ADOBE), gama(256 / 563)), "adobe-rgb"),
        ((chrm(P3), gama(1 / 2.2)), "display-p3"),
    ],
)
def test_chunks_of_a_png_are_applied(chunks, space, tmp_path):
    path = png(scene(0), tmp_path / "a.png", *chunks)
    assert distance(path, profile(space)) < 1.5  # its curve is the exponent 2.2, near sRGB's
    assert distance(path, None) > 3


def test_light_without_a_curve_is_brightened(tmp_path):
    for mode in ("RGB", "L", "LA", "P"):
        picture = Image.new("RGB", (64, 64), (128, 128, 128))
        picture = picture.quantize() if mode == "P" else picture.convert(mode)
        path = png(picture, tmp_path / f"{mode}.png", gama(1.0))
        pixels = np.asarray(open_picture(path, SPEC)).astype(int)
        assert np.abs(pixels - 188).max() <= 1, mode  # half of the light is sRGB 188


@pytest.mark.parametrize(
    "chunks",
    [
        (chunk(b"sRGB", b"\0"), gama(1.0), chrm(P3)),  # sRGB wins
        (gama(0.45455), chrm(SRGB)),
        (gama(0.45455),),
        (chrm(SRGB),),
        (cicp(1, 13), gama(1.0)),
        (cicp(2, 2),),
        (gama(0),),
        (gama(0.000_02),),
        (chrm((0.1,) * 6),),
        (chrm((0, 0, 0, 0, 0, 0)),),
        (chrm((0.3, 0.3, 0.31, 0.3, 0.32, 0.3)),),
        (chunk(b"cICP", b"\x0c"),),
    ],
)
def test_chunks_that_mean_srgb_or_nothing_change_no_byte(chunks, tmp_path):
    assert distance(png(scene(0), tmp_path / "a.png", *chunks), None) == 0


def test_a_cicp_chunk_wins_over_a_profile(tmp_path):
    inside = profile("prophoto")
    path = png(scene(0), tmp_path / "a.png", cicp(12, 13), icc_profile=inside)
    assert distance(path, profile("display-p3")) < 1.5
    path = png(scene(0), tmp_path / "srgb.png", cicp(1, 13), icc_profile=inside)
    assert distance(path, None) == 0
    path = png(scene(0), tmp_path / "unsaid.png", cicp(2, 2), icc_profile=inside)
    assert distance(path, inside) < 0.5


def test_beside_code_points_that_cannot_be_applied_a_profile_counts_and_nothing_is_told(tmp_path):
    inside = profile("display-p3")
    path = png(scene(0), tmp_path / "hdr.png", cicp(9, 16), icc_profile=inside)
    assert distance(path, inside) < 0.5
    assert read(path, SPEC).note == ""


@pytest.mark.parametrize("chunks", [(chunk(b"sRGB", b"\0"),), (gama(0.45455), chrm(SRGB))])
def test_chunks_of_a_png_win_over_its_exif(chunks, tmp_path):
    for said in (camera(0xFFFF, "R03"), camera(0xFFFF)):
        path = png(scene(0), tmp_path / "a.png", *chunks, exif=said.tobytes())
        assert distance(path, None) == 0
        assert read(path, SPEC).note == ""
    path = png(scene(0), tmp_path / "b.png", exif=camera(0xFFFF, "R03").tobytes())
    assert distance(path, profile("adobe-rgb")) < 0.5


def test_a_box_of_an_avif_is_applied(tmp_path):
    path = saved(scene(0), tmp_path / "a.avif", quality=95)
    data = path.read_bytes()
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :])
    assert distance(path, profile("display-p3")) < 1.5
    assert distance(path, None) > 3


def test_what_cannot_be_applied_is_told_and_read_as_srgb(tmp_path):
    png(scene(0), tmp_path / "hdr.png", cicp(9, 16))
    png(scene(1), tmp_path / "odd.png", cicp(77, 13))
    saved(scene(2), tmp_path / "photo.jpg", exif=camera(0xFFFF))
    saved(scene(3), tmp_path / "plain.png")
    checked = check_pictures(tmp_path, IntakeSpec())
    assert checked.problems == []
    (told,) = checked.remarks
    for word in ("read as sRGB", "'hdr.png' (colours of HDR, PQ)", "'odd.png'", "'photo.jpg'"):
        assert word in told
    assert "plain.png" not in told
    assert (opened(scene(3), tmp_path / "plain.png") == np.asarray(scene(3))).all()


def test_damaged_exif_names_nothing(tmp_path):
    good = saved(scene(0), tmp_path / "a.jpg", exif=camera(0xFFFF, "R03")).read_bytes()
    at = good.index(b"Exif\0\0")
    for offset in range(6, int.from_bytes(good[at - 2 : at], "big") - 2):
        data = bytearray(good)
        data[at + offset] ^= 0xFF
        (tmp_path / "b.jpg").write_bytes(data)
        assert read(tmp_path / "b.jpg", SPEC).look.size in ((160, 120), (120, 160))
