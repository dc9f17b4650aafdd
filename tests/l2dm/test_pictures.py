import itertools
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from l2dm.errors import BadUpload
from l2dm.pictures import FORMATS, Look, look, open_picture, repeats, same
from l2dm.pocket import world
from l2dm.spec import IntakeSpec

SPEC = IntakeSpec()
NEAR = SPEC.near_duplicate_bits
PHOTOS = Path(os.environ.get("L2DM_PHOTOS", Path(__file__).parents[3] / "shared" / "photos"))


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


def opened(picture: Image.Image, path: Path, **options) -> np.ndarray:
    result = open_picture(saved(picture, path, **options), SPEC)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


def flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (64, 64), colour)


# Refused -----------------------------------------------------------------------------------------


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


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


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


# Converted, with pixels that are known -----------------------------------------------------------


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


# The same picture twice --------------------------------------------------------------------------


def test_the_hash_is_the_signs_of_64_gradients_each_way(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    across = look(saved(Image.fromarray(ramp), tmp_path / "a.png"), SPEC)
    down = look(saved(Image.fromarray(ramp.T.copy()), tmp_path / "b.png"), SPEC)
    assert across.bits == 2**64 - 1  # brighter to the right everywhere, nowhere downwards
    assert down.bits == (2**64 - 1) << 64


def variants(picture: Image.Image, folder: Path):
    """The same picture as a user meets it again."""
    yield saved(picture, folder / "v.png")
    yield saved(picture, folder / "v90.jpg", quality=90)
    yield saved(picture, folder / "v75.jpg", quality=75)
    yield saved(picture, folder / "v.webp", quality=90)
    for i, factor in enumerate((0.77, 1.5, 2.0)):
        size = round(picture.width * factor), round(picture.height * factor)
        yield saved(picture.resize(size, Image.Resampling.LANCZOS), folder / f"v{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture.transpose(Image.Transpose.ROTATE_90)  # stored lying, shown upright
    yield saved(turned, folder / "turned.jpg", quality=90, exif=exif)


def pocket_photos(n: int) -> list[Image.Image]:
    nouns = itertools.cycle(world.NOUNS)
    numbers = zip(world.TEST_SEEDS[:n], nouns, strict=False)
    return [world.photos(world.identity(seed, noun), 1, 0)[0] for seed, noun in numbers]


def test_a_scene_is_found_again_whatever_was_done_to_its_file(tmp_path):
    for seed in range(5):
        first = look(saved(scene(seed), tmp_path / "a.bmp"), SPEC)
        for path in variants(scene(seed), tmp_path):
            assert same(first, look(path, SPEC), NEAR), path.name


def test_pocket_photos_are_found_again(tmp_path):
    """64 pixels a side leave little to compare: nearly all variants are found, not all."""
    found = []
    for picture in pocket_photos(20):
        first = look(saved(picture, tmp_path / "a.bmp"), SPEC)
        found += [same(first, look(path, SPEC), NEAR) for path in variants(picture, tmp_path)]
    assert len(found) == 160
    assert sum(found) >= 150


def test_different_pocket_photos_of_one_identity_are_different(tmp_path):
    """Twenty photographs in eight places: the same thing, the same grass, another moment."""
    for seed, noun in zip(world.TEST_SEEDS[:30], itertools.cycle(world.NOUNS), strict=False):
        photos = world.photos(world.identity(seed, noun), 20, 0)
        looks = {
            str(i): look(saved(photo, tmp_path / "a.png"), SPEC) for i, photo in enumerate(photos)
        }
        assert repeats(looks, NEAR) == []


def test_different_plain_pictures_are_different(tmp_path):
    white = look(saved(flat("RGB", (250, 250, 250)), tmp_path / "a.png"), SPEC)
    pink = look(saved(flat("RGB", (250, 230, 230)), tmp_path / "b.png"), SPEC)
    assert same(white, white, NEAR)
    assert not same(white, pink, NEAR)


@pytest.mark.parametrize(
    ("apart", "difference", "expected"),
    [
        (4, 6, True),  # 6 = 0.12 * 50 levels of contrast: as near as the spec says, and alike
        (4, 7, False),
        (5, 3, True),  # not as near, but of the same colours: 3 < 0.07 * 50 = 3.5
        (5, 4, False),
        (16, 3, True),
        (17, 0, False),  # four times as far
    ],
)
def test_hash_and_colours_must_agree(apart, difference, expected):
    one = Look("PNG", 0, bytes([100]) * 768, 50.0)
    other = Look("PNG", 2**apart - 1, bytes([100 + difference]) * 768, 90.0)
    assert same(one, other, 4) is same(other, one, 4) is expected


def test_plain_pictures_may_differ_by_the_noise_of_an_encoder():
    one = Look("PNG", 0, bytes([100]) * 768, 0.0)
    assert same(one, Look("JPEG", 0, bytes([101] * 80 + [100] * 688), 0.1), 4)  # 80/768 < 0.12
    assert not same(one, Look("JPEG", 0, bytes([101] * 100 + [100] * 668), 0.1), 4)


def test_every_repeat_is_named_once_with_the_first(tmp_path):
    one, two = (look(saved(scene(i), tmp_path / "a.png"), SPEC) for i in (0, 1))
    assert repeats({"a": one, "b": two, "c": one, "d": one, "e": two}, NEAR) == [
        ("a", "c"),
        ("a", "d"),
        ("b", "e"),
    ]


needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(),
    reason=f"REAL PHOTOGRAPHS NOT TESTED: no folder {PHOTOS}; set L2DM_PHOTOS to theirs",
)


@needs_photos
def test_real_photographs_are_accepted_different_and_found_again(tmp_path):
    paths = sorted(PHOTOS.glob("*/*.jpg"))
    assert len(paths) >= 30
    looks = {str(path): look(path, SPEC) for path in paths}
    assert repeats(looks, NEAR) == []
    for path in paths[::5]:
        for variant in variants(open_picture(path, SPEC), tmp_path):
            assert same(looks[str(path)], look(variant, SPEC), NEAR), (path, variant.name)


# Cost --------------------------------------------------------------------------------------------


def test_twenty_phone_pictures_are_checked_in_three_seconds(tmp_path):
    """Processor seconds of this process, so that a busy machine does not fail the test."""
    paths = []
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (300, 400, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
        paths.append(saved(picture, tmp_path / f"{i}.jpg", quality=92))
    assert paths[0].stat().st_size > 2_000_000
    begun = time.process_time()
    looks = {str(path): look(path, SPEC) for path in paths}
    repeats(looks, NEAR)
    assert (time.process_time() - begun) * len(range(20)) / len(paths) < 3.0


def test_checking_needs_neither_torch_nor_numpy():
    code = "import sys, l2dm.concepts; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
