"""Pictures of a release: load it once on its base, then prompts and seeds to pictures."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from l2dm import doors
from l2dm.bases.model import Model
from l2dm.bases.prompts import require_known
from l2dm.bases.sampling import Progress, Shot, draw
from l2dm.files import manifest
from l2dm.releases.folder import adapter_of
from l2dm.releases.load import load_adapter
from l2dm.sections import replaced
from l2dm.spec import SamplingSpec


class Painter:
    """A base model with the adapter of one release on it."""

    def __init__(self, model: Model, concepts: Sequence[doors.Concept]) -> None:
        self.model, self.concepts = model, tuple(concepts)

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
        require_known(prompt, [concept.name for concept in self.concepts])
        shots = [Shot(prompt, seed) for seed in seeds]
        alone = replaced(sampling, batch=1)
        return draw(self.model, shots, alone, on_progress=on_progress)


def open_release(folder: Path, base: str) -> Painter:
    """The release in a folder on its base. Raises BadDoor, BadBase, DoesNotFit."""
    manifest.read(folder, doors.Release)
    adapter = adapter_of(folder)
    return Painter(load_adapter(adapter, base), adapter.record.concepts)
