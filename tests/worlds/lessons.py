"""Lessons of noise on the tiny base, for `fit` and for what every method answers."""

from pathlib import Path

import torch

from l2dm import doors
from l2dm.bases.model import Model
from l2dm.files import door_files, manifest
from l2dm.methods.contract import Learned
from l2dm.methods.lesson import Lesson, Pool
from l2dm.spec import Spec, parse
from l2dm.training.fit import StepReport

REX = doors.Concept("rex", "dog")
TOM = doors.Concept("tom", "cat")
TRAIN = {"steps": 6, "batch": 2, "rank": 2, "checkpoint_every": 2}
OWN = {"l2dm": {"replay_batch": 2}}
SIZES = {"new": 2, "replay": 2}


def spec_of(method: str = "l2dm", adapter: str = "", rank: int = 2, **options: object) -> Spec:
    """options: of the method."""
    options = OWN.get(method, {}) | options | ({"adapter": adapter} if adapter else {})
    return parse({"train": TRAIN | {"method": method, "rank": rank}, method: options})


def pool(count: int, prompt: str, seed: int) -> Pool:
    latents = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Pool(latents, ((prompt,),) * count)


def first_lesson(model: Model, folder: Path, replay: int = 0) -> Lesson:
    record = doors.Adapter("none", "none", (), model.fingerprint, "")
    parent = manifest.write(folder / "empty", record, lambda _: None)
    return Lesson(
        REX, parent, pool(4, "a photo of a <rex> dog", 1), pool(replay, "a photo of a dog", 2),
        pool(5, "a photo of a dog", 3), seed=11,
    )  # fmt: skip


def second_lesson(parent: manifest.Door[doors.Adapter]) -> Lesson:
    return Lesson(
        TOM, parent, pool(4, "a <tom> cat", 5), pool(3, "a photo of a <rex> dog", 6),
        pool(3, "a photo of a cat", 7), seed=12, state=door_files.read_state(parent),
    )  # fmt: skip


def adapter_door(
    folder: Path,
    learned: Learned,
    model: Model,
    spec: Spec,
    concepts: tuple[doors.Concept, ...] = (REX,),
) -> manifest.Door[doors.Adapter]:
    """What a lesson taught, as `train` leaves it."""
    record = doors.Adapter(
        spec.train.method, learned.kind, concepts, model.fingerprint, "", dict(learned.settings)
    )
    return manifest.write(
        folder, record,
        lambda draft: door_files.write_adapter(draft, learned.weights, learned.rows, learned.state),
    )  # fmt: skip


def same(one: Learned, other: Learned) -> bool:
    parts = ((one.weights, other.weights), (one.rows, other.rows), (one.state, other.state))
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in parts
    )


class Killed(Exception):
    pass


def die(report: StepReport) -> None:
    """Between two checkpoints of TRAIN."""
    if report.step == 5:
        raise Killed
