"""The pocket world: coloured things that can be drawn, described and photographed without end.

Language covers it loosely (nouns, colours, three patterns, eight places); *identities* are what
language cannot say. Same version and same seed give the same bytes: only Pillow and numpy draw,
and every choice comes from a passed `random.Random`.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from l2dm.pocket.world.shapes import SHAPES
from l2dm.pocket.world.sprites import ACCESSORIES, GROUNDS, INKS, background, pattern, sprite, tint

WORLD_VERSION = 1  # raise it whenever any picture or caption changes
SIZE = 64  # pixels a side
NOUNS = tuple(SHAPES)
COLOURS = tuple(INKS)
BACKGROUNDS = tuple(GROUNDS)
PATTERNS = ("plain", "striped", "spotted")  # the ones with a name in the language
NAMELESS = ("checkered", "zigzag", "patchwork")
PLACES = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "in snow",
    "night": "at night",
    "sea": "at sea",
    "brick wall": "by a brick wall",
    "wood floor": "on a wood floor",
    "road": "on a road",
}
OPENINGS = ("a photo of", "a picture of", "")

# Identities are numbered; these ranges never meet, so nothing that is tuned or tested was seen in
# training.
TRAINING_SEEDS = range(100_000)
TUNING_SEEDS = range(100_000, 110_000)
TEST_SEEDS = range(110_000, 120_000)
DISTRACTOR_SEEDS = range(120_000, 130_000)

PAIRS = 0.3  # share of scenes with two things
UNSPEAKABLE = 0.15  # share of things in scenes that carry an identity's features, uncaptioned


@dataclass(frozen=True)
class Thing:
    """One object; `second` colours details and pattern, `third` the accessory and some patchwork.

    shape: [0, 1] for things the language covers, beyond for identities. stretch: width over height.
    """

    noun: str
    colour: str
    second: str
    third: str
    pattern: str = "plain"
    shape: float = 0.5
    stretch: float = 1.0
    accessory: str | None = None


@dataclass(frozen=True)
class Scene:
    """One or two things, listed from left to right, before a background."""

    things: tuple[Thing, ...]
    background: str


@dataclass(frozen=True)
class Identity:
    """A thing that language can only call by its noun; `thing` is how it always looks."""

    seed: int
    noun: str
    thing: Thing


def sample_thing(rng: random.Random, noun: str | None = None) -> Thing:
    """A thing within reach of the language."""
    colour, second, third = rng.sample(COLOURS, 3)
    return Thing(
        noun=noun or rng.choice(NOUNS),
        colour=colour,
        second=second,
        third=third,
        pattern=rng.choices(PATTERNS, (0.5, 0.25, 0.25))[0],
        shape=rng.random(),
    )


def sample_scene(rng: random.Random, pairs: float = PAIRS) -> Scene:
    """A training scene; with probability `pairs` it holds two things.

    Some of its things look like an identity of the training range, and no caption says so.
    """
    things = []
    for _ in range(2 if rng.random() < pairs else 1):
        if rng.random() < UNSPEAKABLE:
            things.append(identity(rng.choice(TRAINING_SEEDS), rng.choice(NOUNS)).thing)
        else:
            things.append(sample_thing(rng))
    return Scene(tuple(things), rng.choice(BACKGROUNDS))


def identity(seed: int, noun: str) -> Identity:
    """The identity with this number: it always has something no word names, often several."""
    rng = random.Random(
        f"identity {seed} {noun}"
    )  # strings seed through SHA-512: the same on every machine
    thing = sample_thing(rng, noun)
    nameless, dressed = rng.choice(((True, True), (True, True), (True, False), (False, True)))
    if nameless:
        thing = replace(thing, pattern=rng.choice(NAMELESS))
    if dressed:
        thing = replace(thing, accessory=rng.choice(tuple(ACCESSORIES)))
    if rng.random() < 0.5:
        thing = replace(thing, shape=rng.choice((-0.6, 1.6)), stretch=rng.choice((0.75, 1.3)))
    return Identity(seed, noun, thing)


def photos(subject: Identity, n: int, seed: int) -> list[Image.Image]:
    """N photographs of an identity, alone; poses and places follow from the seed."""
    rng = random.Random(f"photos {subject.seed} {subject.noun} {seed}")
    places = list(BACKGROUNDS)
    rng.shuffle(places)
    return [draw(Scene((subject.thing,), places[i % len(places)]), rng) for i in range(n)]


def distractors(n: int) -> tuple[Identity, ...]:
    """The first n strangers, nouns in turn; their range is used for nothing else."""
    return tuple(identity(DISTRACTOR_SEEDS[i], NOUNS[i % len(NOUNS)]) for i in range(n))


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw the scene at twice the size and reduce it: (64, 64) RGB.

    Size, place, angle, mirror and light vary.
    """
    return draw_with_masks(scene, rng)[0]


def draw_with_masks(
    scene: Scene, rng: random.Random
) -> tuple[Image.Image, tuple[Image.Image, ...]]:
    """The picture of `draw`, and where each thing is: one (64, 64) "L" picture a thing, 255 inside.

    What a later thing covers of an earlier one still counts as the earlier one's.
    """
    canvas = 2 * SIZE
    picture = background(scene.background, canvas, rng)
    masks = []
    alone = len(scene.things) == 1
    for i, thing in enumerate(scene.things):
        side = int(canvas * (rng.uniform(0.74, 0.92) if alone else rng.uniform(0.5, 0.58)))
        x = rng.uniform(0.44, 0.56) if alone else (0.26, 0.74)[i] + rng.uniform(-0.02, 0.02)
        y = rng.uniform(0.48, 0.56) if alone else rng.uniform(0.46, 0.62)
        tile = _tile(thing, side, rng)
        corner = (int(canvas * x - tile.size[0] / 2), int(canvas * y - tile.size[1] / 2))
        picture.paste(tile, corner, tile)
        mask = Image.new("L", (canvas, canvas), 0)
        mask.paste(tile.getchannel("A"), corner)
        masks.append(mask.resize((SIZE, SIZE), Image.Resampling.BOX))
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX), tuple(masks)


def _tile(thing: Thing, side: int, rng: random.Random) -> Image.Image:
    inks = (
        tint(INKS[thing.colour], rng),
        tint(INKS[thing.second], rng),
        tint(INKS[thing.third], rng),
    )
    swatch = pattern(thing.pattern, side, inks)
    tile = sprite(thing.noun, swatch, inks, thing.shape, thing.accessory)
    if thing.stretch != 1.0:
        width, height = min(1.0, thing.stretch), min(1.0, 1.0 / thing.stretch)
        tile = tile.resize((round(side * width), round(side * height)), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return tile.rotate(rng.uniform(-7, 7), Image.Resampling.BILINEAR)


def caption(scene: Scene, rng: random.Random, *, full: bool = False) -> str:
    """Describe the scene, attributes left out at random; `full` says all that language can."""
    names = [_name(thing, rng, full=full) for thing in scene.things]
    if len(names) == 2:
        left, right = names
        forms = (
            f"{left} and {right}",
            f"{left} to the left of {right}",
            f"{right} to the right of {left}",
        )
        text = rng.choices(forms, (0.8, 0.1, 0.1))[0]
    else:
        text = names[0]
    if full or rng.random() < 0.6:
        text = f"{text} {PLACES[scene.background]}"
    return f"{rng.choice(OPENINGS)} {text}".strip()


def _name(thing: Thing, rng: random.Random, *, full: bool) -> str:
    words = [thing.noun]
    if full or rng.random() < 0.8:
        if thing.pattern in PATTERNS[1:] and (full or rng.random() < 0.7):
            words.insert(0, thing.pattern)
            words.insert(
                0,
                f"{thing.colour} and {thing.second}"
                if full or rng.random() < 0.5
                else thing.colour,
            )
        else:
            words.insert(0, thing.colour)
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    """Pictures as one (N, 64, 64, 3) uint8 array."""
    return np.stack([np.asarray(picture) for picture in pictures])
