"""Photographs are told from flat pictures; how often this is wrong is in docs/pocket.md."""

import random
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from l2dm.pocket.world import scenes
from l2dm.uploads.flatness import FLAT, are_photographs, colours


def shaded(seed: int, side: int = 200) -> Image.Image:
    """A made photograph: soft light on blurred shapes, and a sensor's noise."""
    rng = random.Random(seed)
    picture = Image.effect_noise((side, side), 60).convert("RGB")
    for _ in range(40):
        corner = rng.randrange(side), rng.randrange(side)
        ink = tuple(rng.randrange(256) for _ in range(3))
        picture.paste(ink, (*corner, corner[0] + side // 3, corner[1] + side // 3))
    return Image.blend(picture.filter(ImageFilter.GaussianBlur(6)), picture, 0.2)


@pytest.mark.parametrize("side", [64, 300])
def test_scenes_of_the_pocket_world_are_flat(side: int, tmp_path: Path) -> None:
    wrong = 0
    for number, noun in enumerate(scenes.NOUNS):
        drawn = scenes.photos(scenes.identity(7000 + number, noun), 3, seed=number)
        paths = [tmp_path / f"{number}-{at}.png" for at in range(3)]
        for path, picture in zip(paths, drawn, strict=True):
            picture.resize((side, side), Image.Resampling.LANCZOS).save(path)
        wrong += are_photographs(paths)
    assert wrong == 0


def test_shaded_and_noisy_pictures_are_photographs(tmp_path: Path) -> None:
    for seed in range(6):
        paths = [tmp_path / f"{seed}-{at}.jpg" for at in range(3)]
        for at, path in enumerate(paths):
            shaded(100 * seed + at).save(path, quality=90)
        assert are_photographs(paths)


def test_most_pictures_of_an_upload_decide(tmp_path: Path) -> None:
    plain, photo = Image.new("RGB", (80, 60), "red"), shaded(1)
    assert colours(plain) == 1 and colours(photo) > FLAT
    paths = [tmp_path / f"{at}.png" for at in range(3)]
    for path, picture in zip(paths, (plain, photo, plain), strict=True):
        picture.save(path)
    assert not are_photographs(paths)
    assert not are_photographs([])
