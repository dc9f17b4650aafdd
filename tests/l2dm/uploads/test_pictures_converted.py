import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from l2dm.errors import BadUpload
from tests.worlds.picture_files import SPEC, chunk, flat, open_picture, opened, saved


def test_grey_becomes_three_equal_channels(tmp_path):
    assert (opened(flat("L", 77), tmp_path / "a.png") == 77).all()


@pytest.mark.parametrize(("level", "byte"), [(0, 0), (257, 1), (128 * 257, 128), (65_535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_by_257(level, byte, suffix, tmp_path):
    picture = Image.fromarray(np.full((64, 64), level, dtype=np.uint16))
    assert (opened(picture, tmp_path / f"a.{suffix}") == byte).all()


def test_every_sixteen_bit_level_is_rounded(tmp_path):
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = opened(Image.fromarray(levels), tmp_path / "a.png")[..., 0]
    assert (found == np.floor(levels / 257 + 0.5)).all()


def test_sixteen_bit_colour_keeps_its_colour(tmp_path):
    """Pillow cannot write such a PNG: this is one, 64 x 64 of (65535, 128 * 257, 0)."""
    row = b"\0" + struct.pack(">HHH", 65_535, 128 * 257, 0) * 64
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 64))
        + chunk(b"IEND", b"")
    )
    assert (np.asarray(open_picture(path, SPEC)) == (255, 128, 0)).all()


def test_alpha_is_composited_on_white(tmp_path):
    path = tmp_path / "a.png"
    assert (opened(flat("RGBA", (200, 0, 0, 0)), path) == 255).all()
    assert (opened(flat("RGBA", (200, 10, 0, 255)), path) == (200, 10, 0)).all()
    # 51/255 = 1/5: 0.2 * (200, 0, 0) + 0.8 * 255 = (244, 204, 204)
    assert (opened(flat("RGBA", (200, 0, 0, 51)), path) == (244, 204, 204)).all()
    assert (opened(flat("LA", (100, 51)), path) == 224).all()  # 20 + 204


def test_a_palette_is_looked_up_and_its_transparent_entry_is_white(tmp_path):
    picture = Image.new("P", (64, 64))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (0, 0, 32, 64))
    pixels = opened(picture, tmp_path / "a.png")
    assert (pixels[:, :32] == (200, 100, 50)).all() and (pixels[:, 32:] == (10, 20, 30)).all()
    pixels = opened(picture, tmp_path / "a.png", transparency=1)
    assert (pixels[:, :32] == 255).all() and (pixels[:, 32:] == (10, 20, 30)).all()
    pixels = opened(picture, tmp_path / "a.png", transparency=bytes([255, 0]))
    assert (pixels[:, :32] == 255).all() and (pixels[:, 32:] == (10, 20, 30)).all()


def test_a_transparent_colour_without_alpha_is_white(tmp_path):
    pixels = opened(flat("RGB", (1, 2, 3)), tmp_path / "a.png", transparency=(1, 2, 3))
    assert (pixels == 255).all()


def test_black_and_white_is_0_and_255(tmp_path):
    assert (opened(flat("1", 1), tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_is_converted_not_inverted(suffix, tmp_path):
    # no ink is white; full cyan leaves green and blue
    assert (opened(flat("CMYK", (0, 0, 0, 0)), tmp_path / f"a.{suffix}") == 255).all()
    pixels = opened(flat("CMYK", (255, 0, 0, 0)), tmp_path / f"a.{suffix}")
    assert np.abs(pixels - (0, 255, 255)).max() <= 2


CORNERS = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
CORNERS |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation, suffix, tmp_path):
    """EXIF 2.3, tag 0x0112: where the stored top left corner is when the picture is upright."""
    picture = Image.new("RGB", (96, 64))
    picture.paste((255, 255, 255), (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = opened(picture, tmp_path / f"a.{suffix}", exif=exif)
    assert pixels.shape[:2] == ((64, 96) if orientation < 5 else (96, 64))
    bright = {
        "top left": pixels[4, 4],
        "top right": pixels[4, -5],
        "bottom left": pixels[-5, 4],
        "bottom right": pixels[-5, -5],
    }
    assert [name for name, pixel in bright.items() if pixel.mean() > 128] == [CORNERS[orientation]]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(kind, tmp_path):
    pixels = np.full((64, 64), 70_000, dtype=kind)
    with pytest.raises(
        BadUpload, match=r"expected 8-bit or 16-bit pixels, found .*; save it as an"
    ):
        open_picture(saved(Image.fromarray(pixels), tmp_path / "a.tif"), SPEC)
