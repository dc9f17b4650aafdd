"""Sequential fine-tuning: the same adapter, new pictures only. The contrast that forgets."""

from collections.abc import Mapping

from torch import Tensor

from l2dm.bases.attach import begin_shared, shared_state
from l2dm.bases.model import Model
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Lesson
from l2dm.methods.losses import denoise_loss
from l2dm.methods.text_cache import Reading
from l2dm.spec import TrainSpec


class Sequential:
    """One adapter for the whole line, trained on each concept's pictures in turn."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec

    @property
    def replays(self) -> bool:
        """No: that is why it forgets."""
        return False

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach the line's adapter with the parent's weights and a row for the new concept."""
        row = begin_shared(model, lesson.parent, lesson.concept, self._spec, lesson.seed)
        self._model = model
        self._read = Reading(model, lesson.concept.name)
        return Trainable(model.adapter.trainable(), {lesson.concept.name: row})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD, L2DM Eq. 1."""
        new = batch.new
        predicted = self._model.predict(new.noisy, new.timesteps, self._read(new.prompts))
        return {"new": denoise_loss(predicted, new.target)}

    def end(self) -> Learned:
        """The adapter and every row."""
        return Learned(**shared_state(self._model, self._spec))
