"""Gated adapters (ours, docs/methods.md): forgetting is zero by construction.

Each concept owns a small adapter that acts only on its own placeholder's rows, so training needs
neither memory nor class pictures, and its cost does not depend on how much the line knows.
"""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from l2dm.adapters.contract import AdapterSettings
from l2dm.adapters.gated import put_on
from l2dm.adapters.prompt_rows import GateKind
from l2dm.bases.diffusion import generator_for
from l2dm.bases.model import Model
from l2dm.errors import DoesNotFit
from l2dm.files import door_files
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Lesson
from l2dm.methods.losses import denoise_loss
from l2dm.methods.text_cache import Reading
from l2dm.sections import KEPT, Section
from l2dm.spec import TrainSpec

NAME = "gated"
REPLAYS = False


class GatedOptions(Section):
    """Where a concept's adapter acts."""

    gate: GateKind = Field(
        "token",
        description="rows of a prompt that a concept owns; a line keeps its gate",
        json_schema_extra=KEPT,
    )


class Gated:
    """One low-rank adapter per concept on cross-attention keys and values."""

    replays = REPLAYS  # nothing that is learned now can reach a past concept
    replay_batch = 0

    def __init__(self, spec: TrainSpec, options: GatedOptions) -> None:
        self._rank, self._gate = spec.rank, options.gate

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach the new concept's paths alone; what the line knows is carried over as it is."""
        record = lesson.parent.record
        if record.kind not in ("none", "gated"):
            raise DoesNotFit(
                f"the line's adapter is of kind {record.kind!r}, method 'gated' continues only "
                "gated adapters; start another line for it"
            )
        if record.kind == "gated":
            _require_kept(record.settings, self._settings)
        self._model, self._lesson = model, lesson
        name, noun = lesson.concept.name, lesson.concept.class_noun
        row = model.add_placeholder(name, model.noun_row(noun))
        row.requires_grad_(True)
        generator = generator_for(lesson.seed, "adapter")
        adapter = put_on(model, self._settings, generator, [lesson.concept])
        adapter.learn(name)
        model.adapter = adapter
        self._read = Reading(model, name)
        return Trainable(adapter.trainable(), {name: row})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD on the new pictures, (B,); nothing else can move."""
        new = batch.new
        predicted = self._model.predict(new.noisy, new.timesteps, self._read(new.prompts))
        return {"new": denoise_loss(predicted, new.target)}

    def end(self) -> Learned:
        """The parent's weights, byte for byte, and the new concept's beside them."""
        parent = self._lesson.parent
        weights, rows = door_files.read_weights(parent), door_files.read_rows(parent)
        for name, row in self._model.placeholders.state().items():
            rows[name] = row.unsqueeze(0).cpu()
        return Learned(
            kind="gated",
            settings=self._settings,
            weights=weights | self._model.adapter.state(),
            rows=rows,
        )

    @property
    def _settings(self) -> AdapterSettings:
        return {"rank": self._rank, "gate": self._gate}


def _require_kept(line: AdapterSettings, asked: AdapterSettings) -> None:
    """All concepts' weights lie in one door, which records their rank and gate once."""
    for name, value in asked.items():
        if line[name] != value:
            raise DoesNotFit(
                f"the line's {name} is {line[name]!r}, the spec asks for {value!r}; a line keeps "
                f"its {name}"
            )


OPTIONS, METHOD = GatedOptions, Gated
