"""One training loop for every part of the base model.

Resumable after a kill, with batches that follow from (seed, step).
"""

import copy
import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l2dm.errors import DoesNotFit
from l2dm.training.gradients import GradientWatch

CHANGEABLE = ("steps", "cool", "save_every")  # of a plan, while its stage is half done

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePlan:
    """How long and how fast one stage trains."""

    steps: int
    rate: float  # peak learning rate
    warm: int = 200  # steps of linear warm-up
    cool: float = 0.5  # share of the steps, at the end, over which the rate falls linearly to 2 %
    weight_decay: float = 0.0
    ema: float | None = None  # decay of the averaged weights; None ships the raw ones
    save_every: float = 150.0  # seconds between checkpoints
    seed: int = 0


Loss = Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]
Snapshot = Callable[[nn.Module], None]


def rate_at(step: int, plan: StagePlan) -> float:
    """Learning rate of a step: warm-up, plateau, linear cool-down."""
    left = (plan.steps - step) / max(1.0, plan.cool * plan.steps)
    return plan.rate * min(1.0, (step + 1) / plan.warm) * min(1.0, max(0.02, left))


def fingerprint(*parts: str | float | Tensor | nn.Module) -> str:
    """What a stage is trained on, short: tensors of any shape, networks, names of the rest."""
    digest = hashlib.sha256()
    for part in parts:
        state = part.state_dict() if isinstance(part, nn.Module) else {"": part}
        for name, value in state.items():
            digest.update(f"{name}\0".encode())
            if isinstance(value, Tensor):
                digest.update(f"{tuple(value.shape)} {value.dtype}\0".encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
            else:
                digest.update(f"{value}\0".encode())
    return digest.hexdigest()[:16]


def train(
    name: str,
    module: nn.Module,
    loss: Loss,
    plan: StagePlan,
    work: Path,
    trained_on: str,
    snapshot: Snapshot | None = None,
) -> nn.Module:
    """Train `module` in place by `loss(generator)` and return the weights to ship.

    The checkpoint `work/NAME.ckpt` holds weights, averages, optimiser, step and seconds; each step
    draws only from a generator seeded by (plan.seed, step), so a killed stage ends in the bytes of
    an undisturbed one. trained_on: the `fingerprint` of the data and of networks in the loss.
    `snapshot` gets the weights to ship after every checkpoint. Raises NothingLearned when no
    gradient reaches one of the tensors, DoesNotFit when the checkpoint is of another name, plan
    (what is CHANGEABLE of it aside) or `trained_on`: going on from it would ship a mixture.
    """
    average = copy.deepcopy(module).requires_grad_(requires_grad=False) if plan.ema else None
    optimiser = torch.optim.AdamW(
        module.parameters(),
        plan.rate,
        betas=(0.9, 0.99),
        weight_decay=plan.weight_decay,
        fused=True,
    )
    checkpoint, key = work / f"{name}.ckpt", _key(name, plan, trained_on)
    step, seconds = _resume(checkpoint, key, module, average, optimiser)
    watch = GradientWatch(dict(module.named_parameters()))
    saved = reported = time.monotonic()
    first = step
    sums: dict[str, float] = {}
    while step < plan.steps:
        before = time.monotonic()
        values = _step(module, loss, optimiser, plan, step, watch)
        if average is not None and plan.ema is not None:
            _follow_(average, module, min(plan.ema, (1 + step) / (10 + step)))
        step += 1
        seconds += time.monotonic() - before
        sums = {key: sums.get(key, 0.0) + value for key, value in values.items()}
        if step % 100 == 0 or step == plan.steps:
            pace = (time.monotonic() - reported) / (step - first)
            means = {key: value / (step - first) for key, value in sums.items()}
            log.info("%s", _line(name, step, plan, means, pace))
            sums, reported, first = {}, time.monotonic(), step
        if step == plan.steps or time.monotonic() - saved > plan.save_every:
            _save(checkpoint, key, module, average, optimiser, (step, seconds))
            saved = time.monotonic()
            if snapshot is not None:
                snapshot(average or module)
    return average or module


def seconds_spent(name: str, work: Path) -> float:
    """Seconds of training that the stage's checkpoint has recorded."""
    return float(
        torch.load(work / f"{name}.ckpt", weights_only=True, map_location="cpu")["seconds"]
    )


def _step(
    module: nn.Module,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    plan: StagePlan,
    step: int,
    watch: GradientWatch,
) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = rate_at(step, plan)
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    value, values = loss(generator)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    watch.look()
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    return values


@torch.no_grad()
def _follow_(average: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)


def _line(name: str, step: int, plan: StagePlan, means: dict[str, float], pace: float) -> str:
    values = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
    left = pace * (plan.steps - step) / 60
    return f"{name}: step {step} of {plan.steps}  {values}  {pace:.2f} s a step, {left:.0f} min"


def _key(name: str, plan: StagePlan, trained_on: str) -> dict[str, Any]:
    kept = {part: value for part, value in asdict(plan).items() if part not in CHANGEABLE}
    return {"name": name, **kept, "trained_on": trained_on}


def _require_same_key(path: Path, key: dict[str, Any], found: dict[str, Any]) -> None:
    other = [
        f"{part} {found.get(part)!r} instead of {key[part]!r}"
        for part in key
        if found.get(part) != key[part]
    ]
    if other:
        raise DoesNotFit(
            f"{path}: expected a checkpoint of this stage, found one of another: "
            f"{', '.join(other)}; delete {path} to train the stage from its beginning"
        )


def _save(
    path: Path,
    key: dict[str, Any],
    module: nn.Module,
    average: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    at: tuple[int, float],
) -> None:
    partial = path.with_suffix(".partial")
    state = {
        "key": key,
        "module": module.state_dict(),
        "average": average.state_dict() if average else None,
        "optimiser": optimiser.state_dict(),
        "step": at[0],
        "seconds": at[1],
    }
    torch.save(state, partial)
    os.replace(partial, path)


def _resume(
    path: Path,
    key: dict[str, Any],
    module: nn.Module,
    average: nn.Module | None,
    optimiser: torch.optim.Optimizer,
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    _require_same_key(path, key, state.get("key", {}))
    module.load_state_dict(state["module"])
    if average is not None:
        average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("%s: going on from step %d", path.stem, state["step"])
    return int(state["step"]), float(state["seconds"])
