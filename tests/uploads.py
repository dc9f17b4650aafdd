"""Folders of pictures to submit, and what checking says of them."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

from l2dm.concepts import check
from l2dm.doors import Concept
from l2dm.spec import IntakeSpec

SPEC = IntakeSpec()
MILO = Concept("milo", "dog")


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    rng = random.Random(seed)
    picture = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        ink = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((x, y, x + size[0] // 4, y + size[1] // 4), fill=ink)
    return picture


def pictures(folder: Path, n: int = 3, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        scene(first + i).save(folder / f"p{i:02d}.{('jpg', 'png', 'webp')[i % 3]}")
    return folder


def problems(folder, line="pets", concept=MILO, taken=None, vocabulary=None):
    return check(folder, line, concept, SPEC, taken or {}, vocabulary)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
