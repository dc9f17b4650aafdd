"""Class pictures from the pretrained base: what "a dog" was before anyone taught it a dog."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from l2dm import doors
from l2dm.bases.diffusion import derive_seed
from l2dm.bases.model import Model
from l2dm.bases.prompts import TEMPLATES
from l2dm.bases.sampling import Progress, Shot, draw_latents
from l2dm.errors import BadDoor
from l2dm.files import manifest
from l2dm.files.images import save_png, stack
from l2dm.spec import SamplingSpec

LATENTS = "latents.safetensors"


@dataclass(frozen=True)
class ClassPictures:
    """One noun's pictures. latents: (n, C, h, w); pictures: (n, 3, H, W) uint8."""

    latents: Tensor
    pictures: Tensor


def captions(noun: str, count: int) -> tuple[str, ...]:
    """The class prompts, templates in turn."""
    return tuple(TEMPLATES[i % len(TEMPLATES)].format(noun) for i in range(count))


def seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds of the class pictures: the same for every noun, so that nouns can be compared."""
    return tuple(derive_seed(seed, "prior", i) for i in range(count))


def nouns_for(concept: doors.Concept, past: Sequence[doors.Concept], limit: int) -> tuple[str, ...]:
    """Class nouns to preserve: the new concept's, then those met before, latest first."""
    met = [concept.class_noun, *(old.class_noun for old in reversed(past))]
    return tuple(dict.fromkeys(met))[:limit]


def generate(
    model: Model,
    noun: str,
    count: int,
    sampling: SamplingSpec,
    *,
    seed: int,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> ClassPictures:
    """Class pictures of one noun, from the cache when they were drawn before.

    The cache is keyed by base, noun, count, seed and sampling; a cached folder that does not
    match its own checksums is drawn again.
    """
    folder = cache / _key(model, noun, count, sampling, seed) if cache else None
    if folder and (found := _cached(folder)) is not None:
        return found
    shots = [
        Shot(prompt, number)
        for prompt, number in zip(captions(noun, count), seeds(seed, count), strict=True)
    ]
    with model.plain():
        latents = draw_latents(model, shots, sampling, on_progress=on_progress).cpu()
    pictures = torch.cat([model.decode(part) for part in latents.split(sampling.batch)])
    drawn = ClassPictures(latents, pictures)
    if folder:
        record = doors.Prior(
            model.fingerprint, (noun,), {noun: captions(noun, count)}, seeds(seed, count)
        )
        manifest.write(folder, record, lambda draft: save(draft, {noun: drawn}), seed=seed)
    return drawn


def save(folder: Path, drawn: dict[str, ClassPictures]) -> None:
    """The payload of a Prior door."""
    save_file({noun: one.latents.contiguous() for noun, one in drawn.items()}, folder / LATENTS)
    for index, one in enumerate(drawn.values()):
        place = folder / "pictures" / str(index)
        place.mkdir(parents=True)
        for number, picture in enumerate(one.pictures):
            save_png(picture, place / f"{number:03d}.png")


def load(door: manifest.Door[doors.Prior], noun: str) -> ClassPictures:
    """One noun's pictures from a Prior door."""
    place = door.path(f"pictures/{door.record.nouns.index(noun)}")
    pictures = stack(sorted(place.glob("*.png")))
    return ClassPictures(load_file(door.path(LATENTS))[noun], pictures)


def _cached(folder: Path) -> ClassPictures | None:
    if not folder.is_dir():
        return None
    try:
        door = manifest.read(folder, doors.Prior)
    except BadDoor:
        return None
    return load(door, door.record.nouns[0])


def _key(model: Model, noun: str, count: int, sampling: SamplingSpec, seed: int) -> str:
    parts = [
        model.fingerprint,
        noun,
        count,
        seed,
        sampling.steps,
        sampling.guidance,
        sampling.batch,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
