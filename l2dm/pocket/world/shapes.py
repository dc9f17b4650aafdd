"""How each noun of the pocket world is drawn.

Coordinates: x to the right, y down, both in [-1, 1] for the body; the canvas reaches to `REACH` so
that a crown on top of a head still fits. A noun draws its *body* (which takes the main colour and
the pattern) and its *details* (second colour, or a fixed ink such as an eye). `shape` in [0, 1] is
the noun's one free proportion; identities push it outside that range.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

Ink = tuple[int, int, int]
Points = list[tuple[float, float]]

REACH = 1.15  # half-width of the canvas in body units
DARK: Ink = (25, 25, 28)
LIGHT: Ink = (255, 255, 255)
GLASS: Ink = (190, 230, 250)
WOOD: Ink = (100, 65, 40)
LEAF: Ink = (50, 140, 60)
LAMP: Ink = (250, 240, 120)


class Layer:
    """One drawing surface addressed in body units instead of pixels."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)
        self._size = image.size[0]

    def pixel(self, x: float) -> float:
        """Body units to pixels."""
        return (x / REACH + 1) / 2 * self._size

    def ellipse(self, x: float, y: float, rx: float, ry: float, ink: int | Ink) -> None:
        """A filled ellipse around (x, y)."""
        self._draw.ellipse(
            [self.pixel(x - rx), self.pixel(y - ry), self.pixel(x + rx), self.pixel(y + ry)],
            fill=ink,
        )

    def box(
        self, x0: float, y0: float, x1: float, y1: float, ink: int | Ink, radius: float = 0.0
    ) -> None:
        """A filled box between two corners, rounded by `radius`."""
        corners = [
            self.pixel(min(x0, x1)),
            self.pixel(min(y0, y1)),
            self.pixel(max(x0, x1)),
            self.pixel(max(y0, y1)),
        ]
        self._draw.rounded_rectangle(corners, radius=radius * self._size / (2 * REACH), fill=ink)

    def polygon(self, points: Points, ink: int | Ink) -> None:
        """A filled polygon."""
        self._draw.polygon([(self.pixel(x), self.pixel(y)) for x, y in points], fill=ink)

    def ring(self, x: float, y: float, rx: float, ry: float, ink: int | Ink) -> None:
        """The rim of an ellipse, a sixteenth of the canvas thick."""
        corners = [self.pixel(x - rx), self.pixel(y - ry), self.pixel(x + rx), self.pixel(y + ry)]
        self._draw.ellipse(corners, outline=ink, width=max(2, self._size // 16))

    def dome(self, x: float, y: float, rx: float, ry: float, ink: int | Ink) -> None:
        """The upper half of an ellipse, standing on height y."""
        corners = [self.pixel(x - rx), self.pixel(y - ry), self.pixel(x + rx), self.pixel(y + ry)]
        self._draw.pieslice(corners, 180, 360, fill=ink)


FULL = 255  # body masks are "L" pictures: inside is 255


def _dog(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    body.ellipse(-0.12, 0.2, 0.55, 0.3, FULL)
    body.box(-0.62, 0.3, -0.4, 0.9, FULL)
    body.box(0.16, 0.3, 0.38, 0.9, FULL)
    body.polygon(
        [(-0.5, 0.2), (-0.95, -0.35 - 0.3 * k), (-0.8, -0.4 - 0.3 * k), (-0.35, 0.0)], FULL
    )
    body.ellipse(0.42, -0.35, 0.32, 0.32, FULL)
    body.ellipse(0.74, -0.25, 0.22, 0.16, FULL)
    detail.ellipse(0.2, -0.25, 0.13, 0.26 + 0.14 * k, second)
    detail.ellipse(0.5, -0.42, 0.06, 0.07, DARK)
    detail.ellipse(0.92, -0.29, 0.07, 0.06, DARK)


def _cat(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    body.ellipse(0.0, 0.45, 0.42, 0.45, FULL)
    body.ellipse(0.0, -0.25, 0.42, 0.36, FULL)
    body.polygon([(-0.42, -0.3), (-0.4, -0.92), (-0.05, -0.5)], FULL)
    body.polygon([(0.42, -0.3), (0.4, -0.92), (0.05, -0.5)], FULL)
    body.polygon([(0.25, 0.85), (0.9, 0.3 - 0.5 * k), (0.78, 0.15 - 0.5 * k), (0.25, 0.6)], FULL)
    detail.ellipse(-0.17, -0.28, 0.1, 0.11, second)
    detail.ellipse(0.17, -0.28, 0.1, 0.11, second)
    detail.ellipse(-0.17, -0.28, 0.04, 0.1, DARK)
    detail.ellipse(0.17, -0.28, 0.04, 0.1, DARK)
    detail.polygon([(-0.08, -0.12), (0.08, -0.12), (0.0, -0.02)], DARK)


def _bird(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.2, 0.4, -0.13, 0.9, DARK)
    detail.box(0.1, 0.4, 0.17, 0.9, DARK)
    body.ellipse(-0.05, 0.12, 0.52, 0.38, FULL)
    body.ellipse(0.4, -0.4, 0.28, 0.28, FULL)
    body.polygon([(0.1, -0.2), (0.6, -0.3), (0.4, 0.2)], FULL)
    body.polygon([(-0.4, 0.1), (-0.95, -0.3 - 0.2 * k), (-0.9, 0.2)], FULL)
    detail.polygon([(0.62, -0.5), (0.98, -0.36), (0.62, -0.26)], (240, 160, 30))
    detail.ellipse(-0.14, 0.1, 0.3, 0.19, second)
    detail.ellipse(0.46, -0.46, 0.06, 0.06, DARK)


def _fish(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    height = 0.34 + 0.16 * k
    detail.polygon([(-0.2, -height + 0.1), (0.35, -height + 0.12), (-0.1, -height - 0.3)], second)
    detail.polygon([(0.0, height - 0.1), (0.3, height - 0.1), (0.0, height + 0.25)], second)
    body.ellipse(0.15, 0.0, 0.7, height, FULL)
    body.polygon([(-0.4, 0.0), (-0.95, -0.48), (-0.8, 0.0), (-0.95, 0.48)], FULL)
    detail.ellipse(0.55, -0.08, 0.11, 0.11, LIGHT)
    detail.ellipse(0.57, -0.08, 0.06, 0.06, DARK)


def _car(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    roof = -0.45 - 0.2 * k
    body.box(-0.95, -0.05, 0.95, 0.45, FULL, radius=0.12)
    body.polygon([(-0.6, 0.0), (-0.4, roof), (0.3, roof), (0.62, 0.0)], FULL)
    detail.polygon([(-0.42, -0.06), (-0.3, roof + 0.12), (0.22, roof + 0.12), (0.4, -0.06)], GLASS)
    for x in (-0.52, 0.52):
        detail.ellipse(x, 0.45, 0.25, 0.25, DARK)
        detail.ellipse(x, 0.45, 0.12, 0.12, second)


def _boat(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.05, -0.92, 0.05, 0.4, WOOD)
    body.polygon([(-0.95, 0.35), (0.95, 0.35), (0.6, 0.85), (-0.6, 0.85)], FULL)
    body.polygon([(0.1, -0.85), (0.1, 0.22), (0.55 + 0.3 * k, 0.22)], FULL)
    detail.polygon([(-0.1, -0.6), (-0.1, 0.22), (-0.5, 0.22)], second)


def _house(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    body.box(-0.65, -0.15, 0.65, 0.85, FULL)
    detail.polygon([(-0.85, -0.1), (0.0, -0.55 - 0.35 * k), (0.85, -0.1)], second)
    detail.box(-0.14, 0.35, 0.16, 0.85, WOOD)
    detail.box(-0.5, 0.1, -0.24, 0.36, GLASS)
    detail.box(0.26, 0.1, 0.52, 0.36, GLASS)


def _tree(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.14, 0.2, 0.14, 0.95, second)
    body.ellipse(0.0, -0.4, 0.42 + 0.15 * k, 0.5, FULL)
    body.ellipse(-0.38, 0.0, 0.36 + 0.1 * k, 0.32, FULL)
    body.ellipse(0.38, 0.0, 0.36 + 0.1 * k, 0.32, FULL)


def _flower(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.06, 0.0, 0.06, 0.95, LEAF)
    detail.ellipse(0.26, 0.62, 0.24, 0.11, LEAF)
    petals = 5 + round(2 * min(1.0, max(0.0, k)))
    for i in range(petals):
        angle = 2 * math.pi * i / petals - math.pi / 2
        body.ellipse(0.4 * math.cos(angle), -0.3 + 0.4 * math.sin(angle), 0.27, 0.27, FULL)
    detail.ellipse(0.0, -0.3, 0.22, 0.22, second)


def _cup(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.ring(0.55, 0.1, 0.32 + 0.08 * k, 0.36, second)
    body.polygon([(-0.7, -0.55), (0.5, -0.55), (0.36, 0.8), (-0.56, 0.8)], FULL)
    detail.ellipse(-0.1, -0.55, 0.6, 0.13, second)


def _robot(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.04, -0.95, 0.04, -0.6, DARK)
    detail.ellipse(0.0, -0.92, 0.08 + 0.05 * k, 0.08 + 0.05 * k, second)
    for side in (-1, 1):
        detail.box(side * 0.52, -0.05, side * 0.74, 0.5, second)
        detail.box(side * 0.1, 0.6, side * 0.36, 0.95, second)
    body.box(-0.5, -0.1, 0.5, 0.65, FULL)
    body.box(-0.4, -0.75, 0.4, -0.16, FULL)
    detail.ellipse(-0.17, -0.48, 0.11, 0.11, LAMP)
    detail.ellipse(0.17, -0.48, 0.11, 0.11, LAMP)
    detail.box(-0.2, -0.3, 0.2, -0.24, DARK)


def _mushroom(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.box(-0.22 - 0.06 * k, 0.0, 0.22 + 0.06 * k, 0.92, second, radius=0.12)
    body.dome(0.0, 0.2, 0.88, 0.95 + 0.1 * k, FULL)


def _hat(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    body.ellipse(0.0, 0.5, 0.95, 0.24, FULL)
    top = -0.45 - 0.3 * k
    body.polygon([(-0.5, 0.45), (-0.42, top), (0.42, top), (0.5, 0.45)], FULL)
    detail.polygon([(-0.5, 0.36), (-0.48, 0.08), (0.48, 0.08), (0.5, 0.36)], second)


def _star(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    points = []
    for i in range(10):
        radius = 0.95 if i % 2 == 0 else 0.4 + 0.12 * k
        angle = -math.pi / 2 + math.pi * i / 5
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    body.polygon(points, FULL)
    detail.ellipse(0.0, 0.02, 0.2, 0.2, second)


def _backpack(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.ring(0.0, -0.6, 0.28, 0.32, second)
    body.box(-0.62, -0.6, 0.62, 0.85, FULL, radius=0.3)
    detail.box(-0.4, 0.22 - 0.12 * k, 0.4, 0.7, second, radius=0.08)
    detail.box(-0.62, -0.2, 0.62, -0.12, DARK)


def _teapot(body: Layer, detail: Layer, second: Ink, k: float) -> None:
    detail.ring(-0.62, 0.2, 0.3, 0.34, second)
    body.polygon([(0.35, 0.1), (0.8, -0.4), (0.98, -0.3), (0.45, 0.6)], FULL)
    body.ellipse(0.0, 0.25, 0.58, 0.52, FULL)
    detail.ellipse(0.0, -0.25, 0.34, 0.1, second)
    detail.ellipse(0.0, -0.42 - 0.1 * k, 0.11, 0.11, second)


@dataclass(frozen=True)
class Shape:
    """How to draw a noun, and where an accessory sits on it (body units)."""

    draw: Callable[[Layer, Layer, Ink, float], None]
    head: tuple[float, float]  # centre of the top edge, where a crown stands
    neck: tuple[float, float]  # where a scarf or a bow is tied
    face: tuple[float, float]  # centre of a pair of glasses
    width: float  # half-width of the head


SHAPES = {
    "dog": Shape(_dog, (0.4, -0.62), (0.3, -0.02), (0.55, -0.42), 0.3),
    "cat": Shape(_cat, (0.0, -0.58), (0.0, 0.12), (0.0, -0.28), 0.36),
    "bird": Shape(_bird, (0.4, -0.64), (0.32, -0.12), (0.45, -0.46), 0.28),
    "fish": Shape(_fish, (0.4, -0.34), (0.25, 0.05), (0.58, -0.08), 0.3),
    "car": Shape(_car, (-0.05, -0.52), (0.0, 0.15), (0.0, -0.25), 0.36),
    "boat": Shape(_boat, (0.0, -0.72), (0.0, 0.52), (0.0, 0.5), 0.34),
    "house": Shape(_house, (0.0, -0.6), (0.0, 0.0), (0.0, 0.22), 0.36),
    "tree": Shape(_tree, (0.0, -0.82), (0.0, 0.1), (0.0, -0.35), 0.36),
    "flower": Shape(_flower, (0.0, -0.84), (0.0, 0.3), (0.0, -0.3), 0.32),
    "cup": Shape(_cup, (-0.1, -0.6), (-0.1, 0.1), (-0.1, -0.1), 0.4),
    "robot": Shape(_robot, (0.0, -0.72), (0.0, -0.12), (0.0, -0.48), 0.36),
    "mushroom": Shape(_mushroom, (0.0, -0.74), (0.0, 0.25), (0.0, -0.2), 0.4),
    "hat": Shape(_hat, (0.0, -0.5), (0.0, 0.15), (0.0, -0.2), 0.36),
    "star": Shape(_star, (0.0, -0.72), (0.0, 0.3), (0.0, -0.1), 0.34),
    "backpack": Shape(_backpack, (0.0, -0.7), (0.0, -0.1), (0.0, -0.35), 0.4),
    "teapot": Shape(_teapot, (0.0, -0.42), (0.0, 0.1), (0.0, 0.1), 0.4),
}
