"""Training of the judge on rendered scenes, softened as generated pictures are."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from l2dm.pocket.judge.judge import HEADS, Judge
from l2dm.pocket.train.loop import StagePlan, fingerprint, train
from l2dm.pocket.world.batches import pick, soften, to_unit
from l2dm.pocket.world.render_cache import NOTHING, Renders
from l2dm.pocket.world.scenes import BACKGROUNDS, Scene, draw

PLAN = StagePlan(steps=9_600, rate=2e-3, warm=100, cool=0.6, weight_decay=0.02, seed=3)
BATCH = 96
EMPTY = 4  # pictures a batch that show a background and nothing on it
EMPTIES = 400  # how many of those are rendered


def empty_pictures(n: int) -> Tensor:
    """Backgrounds without a thing, (n, 3, 64, 64) in [-1, 1]."""
    rng = random.Random("empty")
    drawn = [np.asarray(draw(Scene((), BACKGROUNDS[i % len(BACKGROUNDS)]), rng)) for i in range(n)]
    return to_unit(torch.from_numpy(np.stack(drawn)))


def train_judge(
    renders: Renders, work: Path, device: torch.device, plan: StagePlan = PLAN
) -> Judge:
    """Cross-entropy of noun and colour in both slots; colours only where there is a thing."""
    torch.manual_seed(plan.seed)
    judge_model = Judge().to(device)
    labels, empties = torch.from_numpy(renders.labels).long(), empty_pictures(EMPTIES)
    nothing = torch.tensor([[NOTHING, -100, NOTHING, -100]]).repeat(EMPTY, 1)

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index, pictures = pick(renders, BATCH - EMPTY, generator)
        chosen = torch.randint(EMPTIES, (EMPTY,), generator=generator)
        target = labels[index, :4].clone()
        target[target[:, 2] == NOTHING, 3] = -100
        target = torch.cat([target, nothing]).to(device)
        pictures = soften(torch.cat([pictures, empties[chosen]]), generator).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = judge_model(pictures)
        parts = [
            F.cross_entropy(logits[name].float(), target[:, i]) for i, name in enumerate(HEADS)
        ]
        total = torch.stack(parts).sum()
        return total, {"loss": total.item()}

    trained_on = fingerprint(renders.key, BATCH, empties)
    trained = train("judge", judge_model, loss, plan, work, trained_on)
    assert isinstance(trained, Judge)
    return trained.eval()
