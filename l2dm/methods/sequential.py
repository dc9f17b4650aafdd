"""Sequential fine-tuning: the same adapter, new pictures only. The contrast that forgets."""

from collections.abc import Mapping

from torch import Tensor

from l2dm.bases.model import Model
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Lesson
from l2dm.methods.losses import denoise_loss
from l2dm.methods.shared import SharedOptions, begin_shared, learned_shared
from l2dm.methods.text_cache import Reading
from l2dm.spec import TrainSpec

NAME = "sequential"
REPLAYS = False


class Sequential:
    """One adapter for the whole line, trained on each concept's pictures in turn."""

    replays = REPLAYS  # that is why it forgets
    replay_batch = 0

    def __init__(self, spec: TrainSpec, options: SharedOptions) -> None:
        self._spec, self._options = spec, options

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach the line's adapter with the parent's weights and a row for the new concept."""
        row = begin_shared(model, lesson, self._options.adapter, self._spec.rank)
        self._model = model
        self._read = Reading(model, lesson.concept.name)
        return Trainable(model.adapter.trainable(), {lesson.concept.name: row})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD, L2DM Eq. 1, (B,)."""
        new = batch.new
        predicted = self._model.predict(new.noisy, new.timesteps, self._read(new.prompts))
        return {"new": denoise_loss(predicted, new.target)}

    def end(self) -> Learned:
        """The adapter and every row."""
        return learned_shared(self._model)


OPTIONS, METHOD = SharedOptions, Sequential
