"""Put one model to the test: draw a concept with fixed prompts and seeds, measure each picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from l2dm.bases.encoders import Encoders
from l2dm.bases.model import Model
from l2dm.bases.prompts import EVALUATION_TEMPLATES, without_placeholders
from l2dm.bases.sampling import Progress, Shot, draw
from l2dm.doors import Concept, Measurement, Memory
from l2dm.files.door_files import read_long_term
from l2dm.files.manifest import Door
from l2dm.metrics import alignment
from l2dm.spec import SamplingSpec, Spec

METRICS = ("image_alignment", "text_alignment", "identity_similarity", "identity_accuracy")
DIGITS = 6  # of a stored value: below them is only noise of batch sizes and thread counts

Draw = Callable[[Model, Sequence[Shot], SamplingSpec], Tensor]


@dataclass(frozen=True)
class Drawer:
    """A model that draws under a spec."""

    model: Model
    spec: Spec
    draw: Draw = draw

    def __call__(self, shots: Sequence[Shot]) -> Tensor:
        """Draw in one call, (n, 3, H, W) uint8."""
        return self.draw(self.model, shots, self.spec.sampling)

    def plainly(self, shots: Sequence[Shot]) -> Tensor:
        """The same by the pretrained base, (n, 3, H, W) uint8."""
        with self.model.plain():
            return self(shots)


@dataclass(frozen=True)
class Subject:
    """What is measured, by which encoders, and how many pictures it may cost."""

    model: Model
    encoders: Encoders
    spec: Spec
    draw: Draw = draw

    @property
    def drawer(self) -> Drawer:
        """What draws for it."""
        return Drawer(self.model, self.spec, self.draw)


@dataclass(frozen=True)
class Known:
    """What is right: real features per concept name, and foreign identities (q, d')."""

    image: Mapping[str, Tensor]
    identity: Mapping[str, Tensor]
    distractors: Tensor


@dataclass(frozen=True)
class Cell:
    """One model on one concept. pictures: (n, 3, H, W)."""

    pictures: Tensor
    measurements: tuple[Measurement, ...]

    def mean(self, metric: str) -> float:
        """What the matrix holds."""
        return round(fmean(one.metrics[metric] for one in self.measurements), DIGITS)


def read_known(memory: Door[Memory], concepts: Sequence[Concept], distractors: Tensor) -> Known:
    """The real features of some concepts, from memory. Raises BadDoor when one is missing.

    distractors: foreign identities, (q, d').
    """
    features = read_long_term(memory, concepts)
    return Known(
        image={name: one.image.float() for name, one in features.items()},
        identity={name: one.identity.float() for name, one in features.items()},
        distractors=distractors,
    )


def measure(
    subject: Subject, known: Known, concept: Concept, shots: Sequence[Shot], row: str
) -> Cell:
    """Draw a concept and measure every picture; `row` names the model in the measurements.

    One draw call a concept, so that rows can be compared byte for byte.
    """
    pictures = subject.drawer(shots)
    image = subject.encoders.image(pictures)  # (n, d)
    identity = subject.encoders.identity(pictures)  # (n, d')
    text = subject.encoders.text([without_placeholders(shot.prompt) for shot in shots])
    names = list(known.identity)
    measured = {
        "image_alignment": alignment.image_alignment(image, known.image[concept.name]),
        "text_alignment": alignment.text_alignment(image, text),
        "identity_similarity": alignment.identity_similarity(
            identity, known.identity[concept.name]
        ),
        "identity_accuracy": alignment.identity_accuracy(
            identity, list(known.identity.values()), names.index(concept.name), known.distractors
        ),
    }
    numbers = [
        {metric: float(found[index]) for metric, found in measured.items()}
        for index in range(len(shots))
    ]
    measurements = tuple(
        Measurement(row, shot.prompt, shot.seed, rounded(found), concept=concept.name)
        for shot, found in zip(shots, numbers, strict=True)
    )
    return Cell(pictures, measurements)


def shots_of(phrase: str, count: int, seed: int) -> tuple[Shot, ...]:
    """The fixed prompts and seeds: templates in turn, consecutive seeds."""
    templates = EVALUATION_TEMPLATES
    return tuple(
        Shot(templates[index % len(templates)].format(phrase), seed + index)
        for index in range(count)
    )


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as a measurement holds them."""
    return {metric: round(found, DIGITS) for metric, found in metrics.items()}


def planned(spec: Spec, concepts: int, nouns: int) -> int:
    """Pictures that a row costs at most: every concept, the new one on the base, class prompts."""
    share = share_of(spec, concepts)
    return share * (concepts + 1) + share_of(spec, nouns) * nouns


def counted(total: int, on_progress: Progress | None) -> Draw:
    """`draw`, telling how many of the planned pictures are done."""
    done = 0

    def drawing(model: Model, shots: Sequence[Shot], spec: SamplingSpec) -> Tensor:
        nonlocal done
        before = done
        done += len(shots)

        def tell(drawn: int, _: int) -> None:
            if on_progress:
                on_progress(min(before + drawn, total), total)

        return draw(model, shots, spec, on_progress=tell)

    return drawing


def share_of(spec: Spec, shares: int) -> int:
    """Pictures for each of `shares` concepts or nouns: within the budget, at least one."""
    return max(1, min(spec.evaluate.pictures, spec.evaluate.budget // max(1, shares)))
