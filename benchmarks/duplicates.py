"""How often two pictures are taken for one: copies that are found, views that are refused.

    python -m benchmarks.duplicates [--photos DIR] [--docs docs]

Copies are re-encoded, resized, cropped by up to 8 % a side. Views are different pictures of one
thing: real photographs, pocket photographs, and pocket things turned, stretched and mirrored, on
plain paper or before a camera that does not move. Writes the table in docs/uploads.md.
"""

import argparse
import io
import itertools
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

from l2dm.pocket.world import scenes
from l2dm.spec import IntakeSpec
from l2dm.uploads.likeness import FINE, Appearance, appearance, same

SIDE = 640  # pixels of a made scene
THINGS = 16
NEAR = IntakeSpec().copy_levels
SMOOTH = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
BEGIN, END = "<!-- duplicates: begin -->", "<!-- duplicates: end -->"


def main() -> None:
    """Measure every family of pictures, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    rows = []
    for name, families in _families(options.photos):
        rows.append(_measured(name, list(families)))
        print(rows[-1], flush=True)
    head = ["| pictures | copies | found | pairs of views | refused | a pair takes |"]
    table = "\n".join([*head, "|---|---|---|---|---|---|", *rows])
    path = options.docs / "uploads.md"
    inside = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    path.write_text(inside.sub(lambda _: f"{BEGIN}\n{table}\n{END}", path.read_text()))


def _families(photos: Path | None) -> Iterator[tuple[str, Iterator[list[Image.Image]]]]:
    if photos:
        folders = sorted(path for path in photos.glob("*") if path.is_dir())
        yield "real photographs of eight things", (_opened(folder) for folder in folders)
    yield "pocket photographs, 64 pixels", (scenes.photos(one, 12, 0) for one in _things())
    for share in (0.12, 0.2, 0.4, 0.7):
        name = f"a thing on white, {share:.0%} of the side"
        yield f"{name}, anywhere", _views(share, still=False, paper=True)
        yield f"{name}, in the middle", _views(share, still=True, paper=True)
    for share in (0.2, 0.4):
        name = f"before a camera that does not move, {share:.0%} of the side"
        yield name, _views(share, still=True, paper=False)


def _measured(name: str, families: list[list[Image.Image]]) -> str:
    rng = random.Random(0)
    found = copies = refused = pairs = 0
    spent = 0.0
    for pictures in families:
        looks = [_look(picture) for picture in pictures]
        began = time.process_time()
        for one, other in itertools.combinations(looks, 2):
            pairs += 1
            refused += same(one, other, NEAR)
        spent += time.process_time() - began
        for picture, look in list(zip(pictures, looks, strict=True))[:2]:
            for copy in _copies(picture, rng):
                copies += 1
                found += same(look, _look(copy), NEAR)
    return (
        f"| {name} | {copies} | {found / copies:.1%} | {pairs} | {refused} ({refused / pairs:.1%}) "
        f"| {1000 * spent / pairs:.1f} ms |"
    )


def _look(picture: Image.Image) -> Appearance:
    small = picture.reduce(max(1, min(picture.size) // (2 * FINE)))
    return appearance("PNG", small, picture.size)


def _copies(picture: Image.Image, rng: random.Random) -> Iterator[Image.Image]:
    width, height = picture.size
    for quality in (60, 75, 90):
        yield _encoded(picture, "JPEG", quality)
    yield _encoded(picture, "WEBP", 75)
    for factor in (0.77, 1.5, 2.0, rng.uniform(0.75, 1.6)):
        yield _resized(picture, factor, rng)
    yield _encoded(_resized(picture, rng.uniform(0.8, 1.5), rng), "JPEG", 75)
    for most in (0.02, 0.05, 0.08):
        left, top, right, bottom = (rng.uniform(0, most) for _ in range(4))
        box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
        cropped = picture.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
        yield _encoded(cropped, "JPEG", 85)
        yield _encoded(_resized(cropped, rng.uniform(0.8, 1.5), rng), "JPEG", 85)


def _views(share: float, *, still: bool, paper: bool) -> Iterator[list[Image.Image]]:
    """Eight views a thing, about fourteen degrees apart. still: all in the middle."""
    for number, one in enumerate(_things()):
        rng = random.Random(f"{number} {share}")
        tile = scenes._tile(one.thing, 256, rng)
        ground = Image.new("RGB", (SIDE, SIDE), "white") if paper else _clutter(rng)
        yield [_view(tile, ground, share, -50 + 100 * i / 7, still, rng) for i in range(8)]


def _view(
    tile: Image.Image,
    ground: Image.Image,
    share: float,
    angle: float,
    still: bool,
    rng: random.Random,
) -> Image.Image:
    side = SIDE * share * rng.uniform(0.85, 1.15)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    shown = tile.resize((round(side * rng.uniform(0.6, 1.0)), round(side)), SMOOTH[0])
    shown = shown.rotate(angle + rng.uniform(-3, 3), Image.Resampling.BICUBIC, expand=True)
    spare = (max(1, SIDE - shown.width), max(1, SIDE - shown.height))
    at = (spare[0] // 2, spare[1] // 2)
    if not still:
        at = (rng.randrange(spare[0]), rng.randrange(spare[1]))
    picture = ground.copy()
    picture.paste(shown, at, shown)
    return picture


def _clutter(rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), _ink(rng))
    for _ in range(30):
        x, y, side = rng.randrange(SIDE), rng.randrange(SIDE), rng.randrange(20, 200)
        ImageDraw.Draw(picture).rectangle((x, y, x + side, y + side), fill=_ink(rng))
    return picture


def _ink(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _things() -> list[scenes.Identity]:
    numbers = zip(scenes.TEST_SEEDS[:THINGS], itertools.cycle(scenes.NOUNS), strict=False)
    return [scenes.identity(seed, noun) for seed, noun in numbers]


def _opened(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]


def _encoded(picture: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def _resized(picture: Image.Image, factor: float, rng: random.Random) -> Image.Image:
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, rng.choice(SMOOTH))


if __name__ == "__main__":
    main()
