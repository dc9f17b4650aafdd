"""Folders of pictures to submit, and what checking says of them."""

from pathlib import Path

from PIL import Image

from l2dm.doors import Concept
from l2dm.spec import IntakeSpec
from l2dm.uploads.check import check_names, check_pictures
from tests.worlds import picture_files

SPEC = IntakeSpec()
MILO = Concept("milo", "dog")


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A small one: uploads are many."""
    return picture_files.scene(seed, size)


def pictures(folder: Path, n: int = 3, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        scene(first + i).save(folder / f"p{i:02d}.{('jpg', 'png', 'webp')[i % 3]}")
    return folder


def problems(folder, line="pets", concept=MILO, taken=None, vocabulary=None):
    names = check_names(line, concept, taken or {}, vocabulary)
    return (*names, *check_pictures(folder, SPEC)[0])


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
