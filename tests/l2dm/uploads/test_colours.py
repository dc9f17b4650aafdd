import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from tests.worlds.colour_profiles import SPACES, grey_profile, profile
from tests.worlds.picture_files import SPEC, flat, open_picture, opened, saved, scene


def written(picture: Image.Image, inside: bytes, path, **options):
    """The picture as it is, in another space: what viewers show of the file is the picture."""
    there, srgb = ImageCms.ImageCmsProfile(io.BytesIO(inside)), ImageCms.createProfile("sRGB")
    wide = ImageCms.profileToProfile(picture, srgb, there, renderingIntent=1)
    return saved(wide, path, icc_profile=inside, **options)


def seen_by_viewers(picture: Image.Image, inside: bytes) -> np.ndarray:
    there, srgb = ImageCms.ImageCmsProfile(io.BytesIO(inside)), ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(picture, there, srgb, renderingIntent=1)
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_a_wide_profile_is_applied(space, suffix, tmp_path):
    inside = profile(space)
    options = {"quality": 95} if suffix in ("jpg", "webp", "avif") else {}
    path = written(scene(0), inside, tmp_path / f"a.{suffix}", **options)
    with Image.open(path) as picture:
        shown = seen_by_viewers(picture.convert("RGB"), inside)
        plain = np.asarray(picture.convert("RGB")).astype(int)
    found = np.asarray(open_picture(path, SPEC)).astype(int)
    assert np.abs(found - shown).mean() < 1
    assert np.abs(plain - shown).mean() > 3  # without the profile it would be another picture


def test_a_profile_is_applied_to_what_is_not_transparent(tmp_path):
    inside = profile("display-p3")
    picture = scene(0).convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 255))
    path = saved(picture, tmp_path / "a.png", icc_profile=inside)
    shown = seen_by_viewers(scene(0), inside)
    assert np.abs(np.asarray(open_picture(path, SPEC)).astype(int) - shown).max() <= 1


def test_a_grey_profile_is_applied(tmp_path):
    pixels = opened(flat("L", 128), tmp_path / "a.png", icc_profile=grey_profile(1.0))
    assert (pixels == 188).all()  # 128/255 of the light is sRGB 188


def test_srgb_itself_changes_no_byte(tmp_path):
    inside = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = opened(scene(0), tmp_path / "a.png", icc_profile=inside)
    assert (pixels == np.asarray(scene(0))).all()


@pytest.mark.parametrize("inside", [b"no profile", profile("prophoto")[:200], grey_profile(1.8)])
def test_a_profile_that_is_broken_or_of_other_pixels_is_left_alone(inside, tmp_path):
    pixels = opened(scene(0), tmp_path / "a.png", icc_profile=inside)
    assert (pixels == np.asarray(scene(0))).all()


@pytest.mark.parametrize(("ink", "ground"), [("white", 128), ((250, 240, 250), 128), ("red", 255)])
def test_a_thing_without_ground_is_put_where_it_is_seen(ink, ground, tmp_path):
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=ink)
    pixels = opened(picture, tmp_path / "a.png")
    assert (pixels[0, 0] == ground).all()
    assert np.abs(pixels[32, 32] - ground).max() >= 40


def test_a_thing_of_white_and_grey_is_put_on_black(tmp_path):
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ImageDraw.Draw(picture).rectangle((16, 16, 48, 32), fill="white")
    ImageDraw.Draw(picture).rectangle((16, 33, 48, 48), fill=(128, 128, 128))
    assert (opened(picture, tmp_path / "a.png")[0, 0] == 0).all()
