"""Rendered scenes as arrays: pictures, captions and labels, cached in a work folder."""

import json
import logging
import os
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from l2dm.pocket.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    NOUNS,
    PAIRS,
    SIZE,
    WORLD_VERSION,
    Scene,
    caption,
    draw_with_masks,
    sample_scene,
)

log = logging.getLogger(__name__)

NOTHING = len(NOUNS)  # noun label of the second slot when there is only one thing
LOOSE = 3  # loose captions a scene, beside the full one
LABELS = ("noun_1", "colour_1", "noun_2", "colour_2", "background")
MASK_SIDE = 16  # cells a side of a thing's mask, as many as a picture's latents have
CHUNK = 2_000  # scenes a worker renders at a time


@dataclass(frozen=True)
class Renders:
    """N scenes. pictures: (N, 64, 64, 3) uint8; captions: N rows, the full one first.

    Labels: (N, 5) uint8. masks: (N, 2, 16, 16) uint8, how much of each cell a thing covers (255:
    all of it); a missing second thing covers nothing.
    """

    pictures: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    masks: np.ndarray
    key: str = ""  # names what is kept of these scenes in a work folder

    def __len__(self) -> int:
        return len(self.pictures)


def labels_of(scene: Scene) -> list[int]:
    """Class numbers in the order of `LABELS`; a missing second thing is NOTHING, colour 0."""
    first, second = scene.things[0], scene.things[1] if len(scene.things) > 1 else None
    noun_2, colour_2 = (
        (NOUNS.index(second.noun), COLOURS.index(second.colour)) if second else (NOTHING, 0)
    )
    return [
        NOUNS.index(first.noun),
        COLOURS.index(first.colour),
        noun_2,
        colour_2,
        BACKGROUNDS.index(scene.background),
    ]


def render(stream: str, numbers: Iterable[int], pairs: float = PAIRS) -> Renders:
    """The scenes with these numbers of a named stream; scene i does not depend on the others.

    pairs: share of scenes with two things.
    """
    pictures, captions, labels, masks = [], [], [], []
    for i in numbers:
        rng = random.Random(f"scene {stream} {i}")
        scene = sample_scene(rng, pairs)
        picture, covered = draw_with_masks(scene, rng)
        pictures.append(np.asarray(picture))
        masks.append(_cells(covered))
        captions.append(
            (caption(scene, rng, full=True), *(caption(scene, rng) for _ in range(LOOSE)))
        )
        labels.append(labels_of(scene))
    return Renders(np.stack(pictures), tuple(captions), np.array(labels, np.uint8), np.stack(masks))


def _cells(covered: Sequence[Image.Image]) -> np.ndarray:
    cells = np.zeros((2, MASK_SIDE, MASK_SIDE), np.uint8)
    for slot, mask in enumerate(covered):
        cells[slot] = np.asarray(mask.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX))
    return cells


def rendered(work: Path, stream: str, n: int, pairs: float = PAIRS) -> Renders:
    """N scenes of a stream, rendered once and kept in `work` (pictures memory-mapped)."""
    folder = work / f"{stream}-{n}-v{WORLD_VERSION}-masks"
    if not folder.exists():
        _render_into(folder, stream, n, pairs)
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    return Renders(
        np.load(folder / "pictures.npy", mmap_mode="r"),
        tuple(tuple(row) for row in captions),
        np.load(folder / "labels.npy"),
        np.load(folder / "masks.npy"),
        folder.name,
    )


def _render_into(folder: Path, stream: str, n: int, pairs: float) -> None:
    """Render on all cores; the folder appears under its name only when it is whole."""
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    pictures = np.lib.format.open_memmap(
        partial / "pictures.npy", mode="w+", dtype=np.uint8, shape=(n, SIZE, SIZE, 3)
    )
    captions: list[Sequence[str]] = []
    labels = np.zeros((n, len(LABELS)), np.uint8)
    masks = np.zeros((n, 2, MASK_SIDE, MASK_SIDE), np.uint8)
    chunks = [range(start, min(n, start + CHUNK)) for start in range(0, n, CHUNK)]
    with ProcessPoolExecutor() as pool:
        for chunk, part in zip(
            chunks,
            pool.map(render, [stream] * len(chunks), chunks, [pairs] * len(chunks)),
            strict=True,
        ):
            pictures[chunk.start : chunk.stop] = part.pictures
            labels[chunk.start : chunk.stop] = part.labels
            masks[chunk.start : chunk.stop] = part.masks
            captions.extend(part.captions)
            log.info("render %s: %d of %d", stream, chunk.stop, n)
    pictures.flush()
    np.save(partial / "labels.npy", labels)
    np.save(partial / "masks.npy", masks)
    (partial / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
    os.replace(partial, folder)
