"""Tasks through all six steps on the tiny base, with pictures of noise."""

from pathlib import Path

import numpy as np
from PIL import Image

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.uploads.folder import write_upload

SPEC = specs.parse(
    {
        "intake": {"min_side": 16},
        "prior": {"count": 3},
        "memory": {"candidates": 2, "budget": 8},
        "train": {"method": "l2dm", "steps": 4, "batch": 2, "rank": 2, "checkpoint_every": 2},
        "evaluate": {"pictures": 2, "distractors": 5, "resamples": 20},
    }
)
REX, TOM = doors.Concept("rex", "dog"), doors.Concept("tom", "cat")


def upload(root: Path, concept: doors.Concept, seed: int, line: str = "pets") -> Path:
    folder = root / f"source-{concept.name}"
    folder.mkdir(parents=True)
    for index in range(3):
        pixels = np.random.default_rng([seed, index]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 48), Image.Resampling.NEAREST).save(
            folder / f"{index}.png"
        )
    uploaded = root / "inbox" / line / concept.name
    write_upload(uploaded, folder, line, concept, SPEC.intake, {})
    return uploaded


class Run:
    """One task through all six steps."""

    def __init__(
        self, home: Path, base: Path, uploaded: Path, parent: Path, number: int, spec: specs.Spec
    ) -> None:
        self.context = steps.Context(str(base), "pets", f"t{number:04d}", number - 1, spec)
        self.home, self.parent = home, parent
        self.task = steps.intake(uploaded, parent, home / "task", self.context)
        self.prior = steps.generate_prior(self._task, parent, home / "prior", self.context)
        self.memory = steps.score_memory(self._task, parent, home / "memory", self.context)
        self.adapter = steps.train(
            self._task, parent, home / "prior", home / "memory", home / "adapter", self.context
        )
        self.scores = steps.evaluate(
            self._task, parent, home / "prior", home / "memory", home / "adapter",
            home / "scores", self.context,
        )  # fmt: skip
        self.release = steps.promote(
            self._task, parent, home / "memory", home / "adapter", home / "scores",
            home / "release", self.context,
        )  # fmt: skip

    @property
    def _task(self) -> Path:
        return self.home / "task"
