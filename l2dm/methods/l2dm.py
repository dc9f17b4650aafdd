"""L2DM, "Create Your World: Lifelong Text-to-Image Diffusion" (arXiv 2309.04430), training part.

L = L_SD + L_TAME + gamma L_ECD            (Eq. 7 as quoted second-hand; docs/methods.md)
L_TAME = alpha L_replay + beta L_prior     (Eq. 4)

Reconstruction: the printed sums over past tasks and classes are estimated by drawing entries of
the short-term memory and of the class pictures uniformly; the number of terms is absorbed in
alpha and beta. The second sum of Eq. 4 is read as running over every class met.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from l2dm.adapters.contract import holding
from l2dm.bases.model import Model
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Examples, Lesson, join
from l2dm.methods.losses import denoise_loss, distill_loss
from l2dm.methods.shared import SharedOptions, begin_shared, learned_shared
from l2dm.methods.text_cache import Reading
from l2dm.spec import TrainSpec

NAME = "l2dm"
REPLAYS = True


class L2DMOptions(SharedOptions):
    """Weights of the terms, chosen in docs/sweep.md, and how much is replayed."""

    replay: float = Field(0.2, ge=0, description="alpha of Eq. 4: weight of replayed pictures")
    prior: float = Field(0.25, ge=0, description="beta of Eq. 4: weight of class pictures")
    distill: float = Field(3.0, ge=0, description="gamma of ECD, Eq. 7: weight of the teacher")
    replay_batch: int = Field(4, ge=1, description="replayed and class pictures per step, each")


class L2DM:
    """Task-aware memory enhancement and elastic concept distillation on one shared adapter."""

    def __init__(self, spec: TrainSpec, options: L2DMOptions) -> None:
        self._spec, self._options = spec, options

    @property
    def replays(self) -> bool:
        """Yes, unless both weights on past concepts are 0."""
        return self._options.replay > 0 or self._options.distill > 0

    @property
    def replay_batch(self) -> int:
        """As the options say."""
        return self._options.replay_batch

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """Attach the line's adapter; the teacher is the same network with the parent's weights."""
        row = begin_shared(model, lesson, self._options.adapter, self._spec.rank)
        self._model = model
        self._read = Reading(model, lesson.concept.name)
        self._parent = model.adapter.state()
        return Trainable(model.adapter.trainable(), {lesson.concept.name: row})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD, alpha L_replay, beta L_prior (Eq. 4), gamma L_ECD (Eq. 6), (B,) each; one forward.

        The teacher sees the same noisy latents, timesteps and prompts as the student's replay.
        """
        weights = self._options
        teacher = self._teacher(batch.replay) if len(batch.replay) else None
        groups = [batch.new, batch.replay, batch.prior]
        together = join(groups)
        predicted = self._model.predict(
            together.noisy, together.timesteps, self._read(together.prompts)
        )
        new, replay, prior = predicted.split([len(group) for group in groups])
        terms = {"new": denoise_loss(new, batch.new.target)}
        if len(prior):
            terms["prior"] = weights.prior * denoise_loss(prior, batch.prior.target)
        if teacher is not None:
            terms["replay"] = weights.replay * denoise_loss(replay, batch.replay.target)
            terms["distill"] = weights.distill * distill_loss(replay, teacher)
        return terms

    def end(self) -> Learned:
        """The adapter and every row."""
        return learned_shared(self._model)

    @torch.no_grad()
    def _teacher(self, replay: Examples) -> Tensor:
        with holding(self._model.adapter.trainable(), self._parent):
            text = self._read(replay.prompts)
            return self._model.predict(replay.noisy, replay.timesteps, text)


OPTIONS, METHOD = L2DMOptions, L2DM
