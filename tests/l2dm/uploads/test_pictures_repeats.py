import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from l2dm.pocket.world import scenes
from l2dm.uploads.pictures import Appearance, look, repeats, same
from tests.worlds.picture_files import SPEC, flat, open_picture, saved, scene

NEAR = SPEC.near_duplicate_bits
PHOTOS = Path(os.environ.get("L2DM_PHOTOS", Path(__file__).parents[4] / "shared" / "photos"))


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
    nouns = itertools.cycle(scenes.NOUNS)
    numbers = zip(scenes.TEST_SEEDS[:n], nouns, strict=False)
    return [scenes.photos(scenes.identity(seed, noun), 1, 0)[0] for seed, noun in numbers]


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
    for seed, noun in zip(scenes.TEST_SEEDS[:30], itertools.cycle(scenes.NOUNS), strict=False):
        photos = scenes.photos(scenes.identity(seed, noun), 20, 0)
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
    one = Appearance("PNG", 0, bytes([100]) * 768, 50.0)
    other = Appearance("PNG", 2**apart - 1, bytes([100 + difference]) * 768, 90.0)
    assert same(one, other, 4) is same(other, one, 4) is expected


def test_plain_pictures_may_differ_by_the_noise_of_an_encoder():
    one = Appearance("PNG", 0, bytes([100]) * 768, 0.0)
    near, far = (bytes([101] * count + [100] * (768 - count)) for count in (80, 100))
    assert same(one, Appearance("JPEG", 0, near, 0.1), 4)  # 80/768 < 0.12
    assert not same(one, Appearance("JPEG", 0, far, 0.1), 4)


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
