"""fit(): the only training loop, for every method."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2dm.adapters.contract import compare
from l2dm.bases.devices import one_order
from l2dm.bases.model import Model
from l2dm.errors import BadSpec, DoesNotFit
from l2dm.files.full_disk import told_as_system
from l2dm.methods.contract import Learned, Method, Trainable
from l2dm.methods.lesson import KEEPS, Batch, Lesson, draw_batch
from l2dm.spec import TrainSpec
from l2dm.training.gradients import GradientWatch
from l2dm.training.ranks import Alone, Team

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: 1-based number, weighted means of the loss terms, seconds it took."""

    step: int
    steps: int
    terms: Mapping[str, float]
    seconds: float


OnStep = Callable[[StepReport], None]
Curve = dict[str, list[float]]


@dataclass
class _Progress:
    """Where the run is; what a checkpoint holds besides weights."""

    step: int = 0
    curve: Curve = field(default_factory=dict)


def fit(
    method: Method,
    model: Model,
    lesson: Lesson,
    spec: TrainSpec,
    *,
    work: Path | None = None,
    key: str = "",
    on_step: OnStep | None = None,
    team: Team | None = None,
) -> tuple[Learned, Curve]:
    """Learn one concept. Returns what was learned and the loss curve, one value per step and term.

    work: a folder for checkpoints; a run that was killed goes on from the last one and ends in
    the bytes of an undisturbed run. key: names the run's inputs; a checkpoint with another key is
    not used. team: the processes that learn together, each with its share of every batch where
    its model is; rank 0 writes the checkpoints and all read them. Raises DoesNotFit when the loss
    stops being finite, NothingLearned when no gradient reaches one of the trainable tensors,
    BadSpec when several processes would share a method that keeps a state while it trains.
    """
    team = team or Alone(model.device)
    trainable = method.begin(model, lesson)
    _require_one_state(trainable, spec)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(trainable.weights.values()), "lr": spec.rate},
            {"params": list(trainable.rows.values()), "lr": spec.token_rate},
        ],
        weight_decay=0.0,  # decay would move rows and weights that no gradient asks for
    )
    progress = _resume(work, key, trainable, optimizer)
    parameters = list(trainable.all().values())
    team.agree(parameters)
    watch = GradientWatch(_moving(trainable, spec).all())
    while progress.step < spec.steps:
        began = time.monotonic()
        batch = team.share(_batch(method, model, lesson, spec, progress.step))
        with one_order(model.device):
            with torch.autocast(
                model.device.type, dtype=torch.bfloat16, enabled=spec.precision == "bf16"
            ):
                terms = method.loss(batch)
            weighed = team.weigh(terms)
            _require_finite(weighed.means, progress.step)
            optimizer.zero_grad(set_to_none=True)
            weighed.loss.backward()
        team.add_gradients(parameters)
        watch.look()
        optimizer.step()
        progress.step += 1
        values = {name: round(mean.item(), 6) for name, mean in weighed.means.items()}
        for name, value in values.items():
            progress.curve.setdefault(name, []).append(value)
        if on_step:
            on_step(StepReport(progress.step, spec.steps, values, time.monotonic() - began))
        if work and _is_due(spec, progress.step) and team.rank == 0:
            _checkpoint(work, key, trainable, optimizer, progress)
    return method.end(), progress.curve


def _is_due(spec: TrainSpec, step: int) -> bool:
    """Whether a checkpoint is. After the last step, too: what fails later must not cost it."""
    return bool(spec.checkpoint_every) and (step % spec.checkpoint_every == 0 or step == spec.steps)


def _require_one_state(trainable: Trainable, spec: TrainSpec) -> None:
    if trainable.state and spec.processes > 1:
        raise BadSpec(
            f"spec train.processes: expected 1 with method {spec.method!r}, which keeps a state of "
            f"its own while it trains, and each process would keep another; found {spec.processes}"
        )


def _moving(trainable: Trainable, spec: TrainSpec) -> Trainable:
    """The groups that have a learning rate: one of rate 0 stays, with a gradient or without.

    With `train.rate=0` the concept's row alone learns, and a LoRA whose second factor stays zero
    leaves its first without a gradient for good.
    """
    return Trainable(
        weights=trainable.weights if spec.rate else {},
        rows=trainable.rows if spec.token_rate else {},
    )


def _batch(method: Method, model: Model, lesson: Lesson, spec: TrainSpec, step: int) -> Batch:
    sizes = {"new": spec.batch, "replay": method.replay_batch}
    return draw_batch(lesson, model.noise, step, **sizes)


def _require_finite(means: Mapping[str, Tensor], step: int) -> None:
    total = torch.stack(list(means.values())).detach().sum()
    if not torch.isfinite(total):
        raise DoesNotFit(
            f"the loss became {total.item()} at step {step + 1}; lower train.rate or "
            "train.token_rate, or train in fp32"
        )


def _checkpoint(
    work: Path,
    key: str,
    trainable: Trainable,
    optimizer: torch.optim.Optimizer,
    progress: _Progress,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    draft = work / f"{CHECKPOINT}.draft"
    state = {
        "key": key,
        "step": progress.step,
        "curve": progress.curve,
        "weights": {name: value.detach() for name, value in trainable.all().items()},
        "state": {name: value.detach() for name, value in trainable.state.items()},
        "optimizer": optimizer.state_dict(),
    }
    with told_as_system(draft), draft.open("wb") as file:
        torch.save(_on_cpu(state), file)
    draft.replace(work / CHECKPOINT)


def _on_cpu(value: Any) -> Any:
    """Nested dictionaries with their tensors on the CPU: a run may go on where there is no GPU."""
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    return value.cpu() if isinstance(value, Tensor) else value


@torch.no_grad()
def _resume(
    work: Path | None, key: str, trainable: Trainable, optimizer: torch.optim.Optimizer
) -> _Progress:
    path = work / CHECKPOINT if work else None
    if path is None or not path.is_file():
        return _Progress()
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["key"] != key:
        return _Progress()
    for name, parameter in trainable.all().items():
        parameter.copy_(state["weights"][name])
    compare(trainable.state, state["state"], f"state of the method in {path}", KEEPS)
    for name, tensor in trainable.state.items():
        tensor.copy_(state["state"][name])
    optimizer.load_state_dict(state["optimizer"])
    return _Progress(state["step"], state["curve"])
