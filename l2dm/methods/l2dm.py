"""L2DM, "Create Your World: Lifelong Text-to-Image Diffusion" (arXiv 2309.04430), training part.

L = L_SD + L_TAME + gamma L_ECD            (Eq. 7 as quoted second-hand; docs/methods.md)
L_TAME = alpha L_replay + beta L_prior     (Eq. 4)

Reconstruction: the printed sums over past tasks and classes are estimated by drawing entries of
the short-term memory and of the class pictures uniformly; the number of terms is absorbed in
alpha and beta. The second sum of Eq. 4 is read as running over every class met.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from l2dm.adapters.contract import holding
from l2dm.bases.attach import begin_shared, shared_state
from l2dm.bases.model import Model
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Examples, Lesson, join
from l2dm.methods.losses import denoise_loss, distill_loss
from l2dm.methods.text_cache import Reading
from l2dm.spec import TrainSpec


class L2DM:
    """Task-aware memory enhancement and elastic concept distillation on one shared adapter."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec

    @property
    def replays(self) -> bool:
        """Yes, unless both weights on past concepts are 0."""
        return self._spec.replay > 0 or self._spec.distill > 0

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach the line's adapter; the teacher is the same network with the parent's weights."""
        row = begin_shared(model, lesson.parent, lesson.concept, self._spec, lesson.seed)
        self._model = model
        self._read = Reading(model, lesson.concept.name)
        self._parent = model.adapter.state()
        return Trainable(model.adapter.trainable(), {lesson.concept.name: row})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD, alpha L_replay, beta L_prior (Eq. 4) and gamma L_ECD (Eq. 6); one forward for all.

        The teacher sees the same noisy latents, timesteps and prompts as the student's replay.
        """
        spec = self._spec
        teacher = self._teacher(batch.replay) if len(batch.replay) else None
        groups = [batch.new, batch.replay, batch.prior]
        together = join(groups)
        predicted = self._model.predict(
            together.noisy, together.timesteps, self._read(together.prompts)
        )
        new, replay, prior = predicted.split([len(group) for group in groups])
        terms = {"new": denoise_loss(new, batch.new.target)}
        if len(prior):
            terms["prior"] = spec.prior * denoise_loss(prior, batch.prior.target)
        if teacher is not None:
            terms["replay"] = spec.replay * denoise_loss(replay, batch.replay.target)
            terms["distill"] = spec.distill * distill_loss(replay, teacher)
        return terms

    def end(self) -> Learned:
        """The adapter and every row."""
        return Learned(**shared_state(self._model, self._spec))

    @torch.no_grad()
    def _teacher(self, replay: Examples) -> Tensor:
        with holding(self._model.adapter.trainable(), self._parent):
            text = self._read(replay.prompts)
            return self._model.predict(replay.noisy, replay.timesteps, text)
