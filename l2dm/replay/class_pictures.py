"""Class pictures from the pretrained base: what "a dog" was before anyone taught it a dog."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from l2dm import doors
from l2dm.bases.diffusion import derive_seed
from l2dm.bases.model import Model
from l2dm.bases.prompts import TEMPLATES
from l2dm.bases.sampling import Progress, Shot, draw_latents
from l2dm.errors import BadDoor
from l2dm.files import door_files, manifest
from l2dm.files.door_files import ClassPictures
from l2dm.spec import SamplingSpec


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

        def fill(draft: Path) -> None:
            door_files.write_class_pictures(draft, {noun: drawn})

        manifest.write(folder, record, fill, seed=seed)
    return drawn


def _cached(folder: Path) -> ClassPictures | None:
    if not folder.is_dir():
        return None
    try:
        door = manifest.read(folder, doors.Prior)
        noun = door.record.nouns[0]
        latents = door_files.read_class_latents(door)[noun]
        return ClassPictures(latents, door_files.read_class_pictures(door, noun))
    except BadDoor:
        return None


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
