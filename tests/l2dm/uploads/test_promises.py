"""Headers that promise more than the file holds, and files that cost more than they show."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from l2dm.errors import BadUpload
from tests.worlds.picture_files import SPEC, chunk, look, saved, scene


def jpeg(picture: Image.Image, **options) -> bytearray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return bytearray(buffer.getvalue())


def taller(data: bytearray, height: int) -> bytearray:
    """The same JPEG with another height in its header."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[at + 5 : at + 7] = struct.pack(">H", height)
    return data


@pytest.mark.parametrize("height", [160, 240, 1200])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_promises_more_rows_than_it_has_is_refused(height, mode, options, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(taller(jpeg(scene(0).convert(mode), **options), height))  # of 120
    with pytest.raises(BadUpload, match=rf"expected the {height} rows that its header promises"):
        look(path, SPEC)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_with_a_grey_lower_half_is_accepted(mode, options, tmp_path):
    """It is of the very grey that a decoder makes of rows without data."""
    picture = scene(0)
    picture.paste((128, 128, 128), (0, 60, 160, 120))
    path = tmp_path / "a.jpg"
    if mode != "RGB":
        options = {key: value for key, value in options.items() if key != "subsampling"}
    path.write_bytes(jpeg(picture.convert(mode), **options))
    look(path, SPEC)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("rows", [30, 63])
def test_a_png_with_fewer_rows_than_it_promises_is_refused(level, rows, tmp_path):
    def png(rows: int) -> bytes:
        data = zlib.compress((b"\0" + bytes([level]) * 3 * 64) * rows)
        header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", data)
            + chunk(b"IEND", b"")
        )

    path = tmp_path / "a.png"
    path.write_bytes(png(64))
    look(path, SPEC)
    path.write_bytes(png(rows))
    with pytest.raises(BadUpload, match=r"expected the 64 rows that its header promises"):
        look(path, SPEC)


@pytest.mark.parametrize("orientation", [1, 6])
def test_plain_pictures_of_any_level_keep_what_they_promise(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for level in range(4):
        for suffix in ("png", "gif", "bmp", "tif"):
            options = {} if suffix in ("gif", "bmp") else {"exif": exif}
            path = tmp_path / f"a.{suffix}"
            look(saved(Image.new("L", (64, 80), level), path, **options), SPEC)


def test_a_jpeg_of_twenty_thousand_scans_is_refused_at_once(tmp_path):
    data = bytes(jpeg(scene(0, (640, 480)), progressive=True))
    scan = data[data.rfind(b"\xff\xda") : -2]
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:-2] + scan[:64] * 20_000 + data[-2:])
    begun = time.process_time()
    with pytest.raises(BadUpload, match=r"a JPEG of at most 100 scans, found 20,0\d\d, which"):
        look(path, SPEC)
    assert time.process_time() - begun < 2


def test_scans_of_a_preview_behind_the_picture_do_not_count(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(jpeg(scene(0), progressive=True)) + b"\xff\xda\0\2" * 500)
    look(path, SPEC)
