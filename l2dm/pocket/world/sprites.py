"""Colours, patterns, accessories and backgrounds of the pocket world.

The parts of a picture below the level of a scene.
"""

import random

import numpy as np
from PIL import Image, ImageFilter

from l2dm.pocket.world.shapes import DARK, FULL, REACH, SHAPES, Ink, Layer

INKS: dict[str, Ink] = {
    "red": (214, 48, 49),
    "orange": (243, 140, 36),
    "yellow": (250, 211, 52),
    "green": (46, 160, 67),
    "blue": (52, 104, 214),
    "purple": (142, 68, 173),
    "pink": (247, 135, 185),
    "brown": (121, 76, 44),
    "white": (246, 246, 246),
    "black": (35, 35, 40),
    "gray": (140, 140, 145),
}

# Ground and sky of each background.
GROUNDS: dict[str, tuple[Ink, Ink]] = {
    "grass": ((120, 190, 90), (170, 215, 240)),
    "sand": ((230, 205, 150), (150, 215, 245)),
    "snow": ((232, 240, 248), (185, 205, 225)),
    "night": ((30, 45, 60), (18, 20, 50)),
    "sea": ((40, 110, 180), (170, 220, 250)),
    "brick wall": ((165, 90, 70), (178, 100, 80)),
    "wood floor": ((165, 120, 75), (225, 210, 190)),
    "road": ((110, 110, 115), (190, 205, 220)),
}


def tint(ink: Ink, rng: random.Random) -> Ink:
    """The same colour under slightly other light, up to 10 of 255 a channel."""
    red, green, blue = (int(min(255, max(0, value + rng.uniform(-10, 10)))) for value in ink)
    return red, green, blue


def pattern(name: str, size: int, inks: tuple[Ink, Ink, Ink]) -> np.ndarray:
    """A (size, size, 3) uint8 swatch, two thirds in the first ink, so that it stays *the* colour.

    plain, striped and spotted have names in the language; checkered, zigzag and patchwork have
    none, and only patchwork shows the third ink.
    """
    first, second, third = inks
    swatch = np.empty((size, size, 3), np.uint8)
    swatch[:] = first
    y, x = np.mgrid[0:size, 0:size] / size
    if name == "striped":
        swatch[(y * 7) % 1 > 0.64] = second
    elif name == "spotted":
        u, v = (x * 5) % 1 - 0.5, (y * 5 + 0.5 * (np.floor(x * 5) % 2)) % 1 - 0.5
        swatch[u * u + v * v < 0.1] = second
    elif name == "checkered":
        swatch[(x * 7 % 1 > 0.42) & (y * 7 % 1 > 0.42)] = second
    elif name == "zigzag":
        swatch[(y * 4.5 + np.abs((x * 4.5) % 1 - 0.5) * 1.2) % 1 > 0.64] = second
    elif name == "patchwork":
        column, row = np.floor(x * 4.5), np.floor(y * 4.5)
        kind = (column * 2 + row * 3) % 5
        swatch[kind == 1] = second
        swatch[kind == 3] = third
    return swatch


def _crown(layer: Layer, noun: str, ink: Ink) -> None:
    (x, y), w = SHAPES[noun].head, SHAPES[noun].width
    points = [(x - w, y + 0.08), (x - w, y - 0.36), (x - w / 2, y - 0.14), (x, y - 0.4)]
    points += [(x + w / 2, y - 0.14), (x + w, y - 0.36), (x + w, y + 0.08)]
    layer.polygon(points, ink)


def _scarf(layer: Layer, noun: str, ink: Ink) -> None:
    (x, y), w = SHAPES[noun].neck, SHAPES[noun].width
    layer.box(x - w - 0.06, y - 0.09, x + w + 0.06, y + 0.11, ink, radius=0.08)
    layer.polygon(
        [(x + w * 0.3, y), (x + w * 0.9, y), (x + w * 1.0, y + 0.55), (x + w * 0.35, y + 0.55)], ink
    )


def _glasses(layer: Layer, noun: str, ink: Ink) -> None:
    (x, y), w = SHAPES[noun].face, SHAPES[noun].width
    for side in (-1, 1):
        layer.ellipse(x + side * w * 0.62, y, w * 0.62, w * 0.62, ink)
        layer.ellipse(x + side * w * 0.62, y, w * 0.32, w * 0.32, DARK)


def _bow(layer: Layer, noun: str, ink: Ink) -> None:
    x, y = SHAPES[noun].neck
    layer.polygon([(x, y), (x - 0.4, y - 0.24), (x - 0.4, y + 0.24)], ink)
    layer.polygon([(x, y), (x + 0.4, y - 0.24), (x + 0.4, y + 0.24)], ink)
    layer.ellipse(x, y, 0.1, 0.1, DARK)


def _flag(layer: Layer, noun: str, ink: Ink) -> None:
    x, y = SHAPES[noun].head[0] - SHAPES[noun].width, SHAPES[noun].head[1]
    layer.box(x - 0.03, -1.08, x + 0.04, y + 0.4, DARK)
    layer.polygon([(x, -1.1), (x - 0.55, -0.86), (x, -0.62)], ink)


ACCESSORIES = {"crown": _crown, "scarf": _scarf, "glasses": _glasses, "bow": _bow, "flag": _flag}


def _outline(mask: Image.Image, first: Ink) -> Image.Image:
    """A rim around the body, darker than it (lighter for black): white on snow still shows."""
    rim = (
        (95, 95, 105)
        if sum(first) < 160
        else (first[0] * 11 // 20, first[1] * 11 // 20, first[2] * 11 // 20)
    )
    picture = Image.new("RGBA", mask.size, (*rim, 0))
    picture.putalpha(mask.filter(ImageFilter.MaxFilter(3)))
    return picture


def sprite(
    noun: str, swatch: np.ndarray, inks: tuple[Ink, Ink, Ink], shape: float, accessory: str | None
) -> Image.Image:
    """One object with its details and accessory on a transparent square, as large as the swatch."""
    size = swatch.shape[0]
    mask = Image.new("L", (size, size), 0)
    # Details behind and before the body share one layer: the nouns draw only the few that must
    # not be covered.
    detail = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    SHAPES[noun].draw(Layer(mask), Layer(detail), inks[1], shape)
    body = Image.fromarray(swatch).convert("RGBA")
    body.putalpha(mask)
    picture = Image.alpha_composite(_outline(mask, inks[0]), body)
    picture = Image.alpha_composite(picture, detail)
    if accessory is not None:
        ACCESSORIES[accessory](Layer(picture), noun, inks[2])
    return picture


def background(name: str, size: int, rng: random.Random) -> Image.Image:
    """A (size, size) RGB backdrop.

    Sky above, ground below a jittered horizon, and what tells the place.
    """
    ground, sky = (tint(ink, rng) for ink in GROUNDS[name])
    picture = Image.new("RGB", (size, size), sky)
    layer = Layer(picture)
    horizon = rng.uniform(0.1, 0.4) * REACH
    layer.box(-REACH, horizon, REACH, REACH * 1.1, ground)
    if name == "brick wall":
        _bricks(layer)
    elif name == "night":
        for _ in range(8):
            x, y = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, horizon - 0.1)
            layer.ellipse(x, y, 0.035, 0.035, (255, 255, 220))
    elif name in ("sea", "wood floor"):
        ink = (90, 160, 220) if name == "sea" else (125, 85, 50)
        for i in range(1, 6):
            layer.box(-REACH, horizon + 0.2 * i - 0.025, REACH, horizon + 0.2 * i + 0.02, ink)
    elif name == "road":
        middle = (horizon + REACH) / 2
        layer.box(-REACH, middle - 0.03, REACH, middle + 0.03, (240, 230, 120))
    return picture


def _bricks(layer: Layer) -> None:
    step, mortar = REACH / 4, (208, 180, 168)
    for row in range(8):
        y = -REACH + row * step
        layer.box(-REACH, y, REACH, y + 0.025, mortar)
        for column in range(5):
            x = -REACH + (column + row % 2 / 2) * 2 * step
            layer.box(x, y, x + 0.025, y + step, mortar)


__all__ = ["ACCESSORIES", "FULL", "GROUNDS", "INKS", "background", "pattern", "sprite", "tint"]
