"""The identity encoder, the small world's DINO.

Two photos of one identity are near, different identities far.
"""

import json
import random
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel

from l2dm.pocket.train.loop import StagePlan, fingerprint, train
from l2dm.pocket.world.batches import soften, to_unit
from l2dm.pocket.world.scenes import (
    NOUNS,
    SIZE,
    TRAINING_SEEDS,
    WORLD_VERSION,
    identity,
    photos,
    pixels,
)

PLAN = StagePlan(steps=1_500, rate=2e-3, warm=100, cool=0.6, weight_decay=0.02, seed=4)
IDENTITIES = 3_000
PHOTOS = 8  # taken of each identity
FAMILIES, MEMBERS, SHOTS = (
    12,
    4,
    4,
)  # a batch: families share noun and colour, so the batch holds hard strangers
TEMPERATURE = 0.1


def build() -> ResNetModel:
    """A four-stage basic ResNet whose pooled output is the feature.

    (B, 192, 1, 1), 1.2 M parameters.
    """
    return ResNetModel(
        ResNetConfig(
            num_channels=3,
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 192],
            depths=[1, 1, 1, 1],
            layer_type="basic",
        )
    )


def take(seed: int) -> np.ndarray:
    """(PHOTOS, 64, 64, 3) uint8 of training identity number `seed`; nouns in turn."""
    return pixels(photos(identity(TRAINING_SEEDS[seed], NOUNS[seed % len(NOUNS)]), PHOTOS, seed))


def album(work: Path, n: int) -> np.ndarray:
    """Photos of n training identities, (n, PHOTOS, 64, 64, 3) uint8, taken once and kept."""
    path = work / f"album-{n}-v{WORLD_VERSION}.npy"
    if not path.exists():
        with ProcessPoolExecutor() as pool:
            np.save(path, np.stack(list(pool.map(take, range(n), chunksize=50))))
    taken: np.ndarray = np.load(path, mmap_mode="r")
    return taken


def families(n: int) -> list[list[int]]:
    """Training identities grouped by noun and colour, groups large enough to draw MEMBERS from."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for seed in range(n):
        thing = identity(TRAINING_SEEDS[seed], NOUNS[seed % len(NOUNS)]).thing
        groups[thing.noun, thing.colour].append(seed)
    return [group for group in groups.values() if len(group) >= MEMBERS]


def supervised_contrast(features: Tensor, who: Tensor) -> Tensor:
    """Mean over anchors of -log of the share that photos of the same identity have.

    features: (B, D), not normalised; who: (B,). Source: Khosla et al. (2020), L_out.
    """
    unit = F.normalize(features.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / TEMPERATURE).masked_fill(itself, float("-inf"))
    same = (who[:, None] == who[None, :]) & ~itself
    logs = (logits - logits.logsumexp(-1, keepdim=True)).masked_fill(~same, 0.0)
    return -(logs.sum(-1) / same.sum(-1)).mean()


def train_identity(
    work: Path, device: torch.device, plan: StagePlan = PLAN, identities: int = IDENTITIES
) -> ResNetModel:
    """Supervised contrast over batches of families."""
    torch.manual_seed(plan.seed)
    encoder = build().to(device)
    pictures, groups = album(work, identities), families(identities)
    who = torch.arange(FAMILIES * MEMBERS).repeat_interleave(SHOTS).to(device)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        chosen = [
            seed for group in rng.sample(groups, FAMILIES) for seed in rng.sample(group, MEMBERS)
        ]
        shots = np.concatenate(
            [pictures[seed, rng.sample(range(PHOTOS), SHOTS)] for seed in chosen]
        )
        batch = soften(to_unit(torch.from_numpy(shots)), generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = encoder(batch).pooler_output.flatten(1)
        value = supervised_contrast(features, who)
        return value, {"loss": value.item()}

    batch = f"{FAMILIES} families, {MEMBERS} members, {SHOTS} shots"
    trained_on = fingerprint(WORLD_VERSION, identities, batch, TEMPERATURE)
    trained = train("identity", encoder, loss, plan, work, trained_on)
    assert isinstance(trained, ResNetModel)
    return trained.eval()


def write_preprocessor(folder: Path) -> None:
    """preprocessor_config.json in the form every transformers vision folder has."""
    config = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
