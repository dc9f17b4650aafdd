"""Pictures of a release: load it once on its base, then prompts and seeds to pictures."""

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import torch
from torch import Tensor

from l2dm import doors
from l2dm.bases.model import Model
from l2dm.bases.prompts import shortened
from l2dm.bases.sampling import Progress, Shot, draw
from l2dm.errors import BadPrompt, BadSpec
from l2dm.files import manifest
from l2dm.releases.folder import adapter_of
from l2dm.releases.load import load_adapter
from l2dm.releases.picture_text import Origin
from l2dm.releases.request import DrawPlan, Wish, plan
from l2dm.sections import replaced
from l2dm.spec import SamplingSpec


class Painter:
    """A base model with the adapter of one release on it. digest: the release's."""

    def __init__(
        self, model: Model, concepts: Sequence[doors.Concept], line: str = "", digest: str = ""
    ) -> None:
        self.model, self.concepts = model, tuple(concepts)
        self.line, self.digest = line, digest

    def origin(self, sampling: SamplingSpec, version: int | None = None) -> Origin:
        """What a picture of this release says of its making."""
        model = self.model
        return Origin(
            line=self.line,
            version=version,
            release=self.digest,
            base=model.fingerprint,
            sampler=type(model.scheduler).__name__,
            steps=sampling.steps or model.steps,
            guidance=sampling.guidance or model.guidance,
            side=model.resolution,
        )

    def paint(
        self,
        prompt: str,
        seeds: Sequence[int],
        sampling: SamplingSpec,
        *,
        on_progress: Progress | None = None,
    ) -> Tensor:
        """One picture per seed, (N, 3, H, W) uint8; a seed's picture does not depend on the others.

        Raises BadPrompt when the prompt names a concept that this release does not know.
        """
        wishes = [Wish(prompt, seed) for seed in seeds]
        pictures = []
        for done, picture in enumerate(self.draw(plan(wishes, self.concepts), sampling), start=1):
            pictures.append(picture)
            if on_progress:
                on_progress(done, len(wishes))
        return torch.stack(pictures)

    def draw(
        self, plans: Sequence[DrawPlan], sampling: SamplingSpec, batch: int = 1
    ) -> Iterator[Tensor]:
        """Pictures one after the other, each (3, H, W) uint8, in the order of the plans.

        batch: pictures at once. With 1 a picture depends on nothing that is drawn beside it; with
        more its last bit may. Raises BadSpec for more steps than the base knows, BadPrompt.
        """
        self.require_steps(sampling)
        nouns = {concept.name: concept.class_noun for concept in self.concepts}
        alone = replaced(sampling, batch=batch)
        for _, group in groupby(plans, key=lambda one: dict(one.strengths)):
            while part := list(islice(group, batch)):
                shots = [Shot(one.prompt, one.wish.seed, one.negative) for one in part]
                with self.model.scaled(part[0].strengths, nouns):
                    pictures = draw(self.model, shots, alone)
                yield from pictures

    def notes(self, plans: Sequence[DrawPlan]) -> list[str]:
        """What the writers of these prompts should know, each once: also what falls off the end.

        Raises BadPrompt where a placeholder falls off.
        """
        notes = dict.fromkeys(note for one in plans for note in one.notes)
        problems = []
        for text in dict.fromkeys(text for one in plans for text in (one.prompt, one.negative)):
            if lost := self.model.cut_off(text):
                said = f"prompt {shortened(text)} is longer than this base reads; what falls off: "
                words = [each.placeholder for each in self.concepts if each.placeholder in lost]
                if words:
                    problems.append(f"{said}{lost!r}, with {', '.join(words)}; shorten it")
                else:
                    notes[f"{said}{lost!r}"] = None
        if problems:
            raise BadPrompt(problems)
        return list(notes)

    def require_steps(self, sampling: SamplingSpec) -> None:
        """Raise BadSpec for more steps than the base was trained with."""
        most = int(getattr(self.model.scheduler.config, "num_train_timesteps", sampling.steps))
        if sampling.steps > most:
            raise BadSpec(
                f"spec sampling.steps: expected at most {most}, which is all that this base was "
                f"trained with, found {sampling.steps}"
            )


def open_release(folder: Path, base: str) -> Painter:
    """The release in a folder on its base. Raises BadDoor, BadBase, DoesNotFit."""
    release = manifest.read(folder, doors.Release)
    adapter = adapter_of(folder)
    model = load_adapter(adapter, base)
    return Painter(model, adapter.record.concepts, release.record.line, release.digest)
