"""A base tried out: two steps of drawing, one look by each encoder, everything finite."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from l2dm.bases import folder as base_folder
from l2dm.bases import sampling
from l2dm.bases.encoders import load_encoders
from l2dm.bases.model import load_base
from l2dm.errors import BadBase
from l2dm.spec import SamplingSpec

PROMPT = "a photo of a dog"
STEPS = 2


def try_out(folder: Path) -> dict[str, int | float | str]:
    """What a base that works says of itself. Raises BadBase for one that draws no numbers.

    Loads it and its encoders, one after the other.
    """
    model = load_base(str(folder))
    with torch.no_grad(), _drawing(folder):
        latents = sampling.draw_latents(
            model, [sampling.Shot(PROMPT, 0)], SamplingSpec(steps=STEPS)
        )
        if not latents.isfinite().all():
            raise BadBase(f"base model {folder}: it draws NaN or infinity; its weights are damaged")
        picture = model.decode(latents)
    facts: dict[str, int | float | str] = {
        "family": model.family.name,
        "fingerprint": model.fingerprint,
        "resolution": model.resolution,
        "prediction": model.noise.prediction,
        "scheduler": type(model.scheduler).__name__,
        "steps": model.steps,
        "guidance": model.guidance,
        "parameters": sum(
            weight.numel()
            for network in model.networks.named().values()
            for weight in network.parameters()
        ),
    }
    del model
    _look(folder, picture)
    return facts


def _look(folder: Path, picture: torch.Tensor) -> None:
    encoders = load_encoders(str(folder))
    with _drawing(folder):
        seen = encoders.image(picture), encoders.text([PROMPT]), encoders.identity(picture)
        if not all(features.isfinite().all() for features in seen):
            raise BadBase(f"base model {folder}: an encoder answers NaN; its weights are damaged")
        if seen[0].shape != seen[1].shape:
            raise BadBase(f"base model {folder}: clip/ has other lengths for pictures and texts")


def _drawing(folder: Path) -> AbstractContextManager[None]:
    return base_folder.reading(folder, "what it draws")
