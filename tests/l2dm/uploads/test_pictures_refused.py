import random
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from l2dm.errors import BadUpload
from l2dm.uploads import pictures
from l2dm.uploads.pictures import FORMATS
from tests.worlds.picture_files import SPEC, chunk, look, open_picture, saved, scene


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"",
            r"picture 'a.jpg': expected a JPEG, .* or TIFF picture, found an empty file; convert",
        ),
        (b"hello, I am text", r"'a.jpg': expected a JPEG.* found something else; convert it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"found a HEIC picture; convert it"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", r"found something else"),
    ],
)
def test_what_is_not_a_picture_is_refused(content, message, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for function in (look, open_picture):
        with pytest.raises(BadUpload, match=message):
            function(path, SPEC)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif"])
def test_a_truncated_picture_is_refused(suffix, tmp_path):
    path = saved(scene(0), tmp_path / f"a.{suffix}")
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        for function in (look, open_picture):
            with pytest.raises(
                BadUpload,
                match=rf"'a.{suffix}': expected a (whole picture, found it truncated or|JPEG)",
            ):
                function(path, SPEC)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif"])
def test_damaged_bytes_are_refused_or_harmless_never_a_crash(suffix, tmp_path):
    """Formats without checksums cannot notice every flip; none may end in another exception."""
    rng = random.Random(suffix)
    path = saved(scene(0, (64, 64)), tmp_path / f"a.{suffix}")
    whole = path.read_bytes()
    refused = 0
    for _ in range(150):
        torn = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            torn[rng.randrange(min(len(torn), rng.choice((80, len(torn)))))] = rng.randrange(256)
        path.write_bytes(torn)
        try:
            look(path, SPEC)
        except BadUpload:
            refused += 1
    assert refused > 0


def test_a_damaged_png_is_refused(tmp_path):
    path = saved(scene(0), tmp_path / "a.png")
    torn = bytearray(path.read_bytes())
    torn[len(torn) // 2] ^= 255
    path.write_bytes(torn)
    with pytest.raises(BadUpload, match=r"'a.png': expected a whole picture, found it truncated"):
        look(path, SPEC)


def png_header(width: int, height: int) -> bytes:
    """A PNG of 70 bytes that claims to be as large as you like."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("side", "found"),
    [
        (7_100, r"found 7100 x 7100 = 50,410,000"),  # over our limit
        (10_000, r"found 10000 x 10000 = 100,000,000"),  # over the one Pillow warns at
        (40_000, r"found an image bomb \(.*1600000000 pixels"),  # over the one it refuses at
    ],
)
def test_a_pixel_bomb_is_refused_by_its_header(side, found, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(side, side))
    begun = time.process_time()
    for function in (look, open_picture):
        with pytest.raises(
            BadUpload, match=rf"'a.png': expected at most 50,000,000 pixels, {found}"
        ):
            function(path, SPEC)
    assert time.process_time() - begun < 1.0  # nothing was decoded


def test_too_many_bytes_are_refused_unopened(tmp_path):
    path = tmp_path / "a.png"
    with open(path, "wb") as file:
        file.truncate(30_000_001)
    with pytest.raises(
        BadUpload, match=r"'a.png': expected at most 30,000,000 bytes, found 30,000,001; save it"
    ):
        look(path, SPEC)


def test_a_small_picture_is_refused(tmp_path):
    path = saved(Image.new("RGB", (640, 47)), tmp_path / "a.png")
    with pytest.raises(BadUpload, match=r"at least 48 pixels on each side, found 640 x 47; take a"):
        look(path, SPEC)
    look(saved(Image.new("RGB", (640, 48)), path), SPEC)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_an_animation_is_refused(suffix, tmp_path):
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    saved(scene(0), path, save_all=True, append_images=[scene(1)], **options)
    with pytest.raises(BadUpload, match=r"expected one still picture, found an animated or multi"):
        look(path, SPEC)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "bmp", "tif", "jpg"])
def test_a_still_picture_of_every_format_is_accepted(suffix, tmp_path):
    picture = look(saved(scene(0), tmp_path / f"a.{suffix}"), SPEC)
    assert picture.format in FORMATS


def test_a_phones_jpeg_with_a_preview_behind_it_is_a_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    saved(scene(0), path, format="MPO", save_all=True, append_images=[scene(1)])
    assert look(path, SPEC).format == "JPEG"
    assert np.abs(np.asarray(open_picture(path, SPEC)).astype(int) - scene(0)).mean() < 12


def test_problems_of_one_picture_are_listed_together(tmp_path):
    path = tmp_path / "a.gif"
    saved(Image.new("RGB", (20, 20)), path, save_all=True, append_images=[scene(1, (20, 20))])
    with pytest.raises(BadUpload) as caught:
        look(path, SPEC)
    assert len(caught.value.problems) == 2


def test_avif_is_read_whatever_its_brand(tmp_path):
    path = saved(scene(0), tmp_path / "a.avif", quality=90)
    assert look(path, SPEC).format == "AVIF"
    path.write_bytes(path.read_bytes().replace(b"ftypavif", b"ftypmif1", 1))
    assert look(path, SPEC).format == "AVIF"


def test_heic_is_read_where_the_extra_is_installed(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC NOT TESTED: install l2dm[heic]")
    path = tmp_path / "a.heic"
    heif.from_pillow(scene(0)).save(path, quality=90)
    assert look(path, SPEC).format == "HEIF"
    assert np.abs(np.asarray(open_picture(path, SPEC)).astype(int) - scene(0)).mean() < 8


def test_heic_is_refused_by_name_where_it_is_not(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(BadUpload, match=r"found a HEIC picture; convert it \(the extra l2dm\[heic"):
        look(path, SPEC)
