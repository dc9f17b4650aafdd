"""Put one model to the test: draw a concept with fixed prompts and seeds, measure each picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from l2dm.bases.encoders import Encoders
from l2dm.bases.model import Model
from l2dm.bases.prompts import EVALUATION_TEMPLATES, without_placeholders
from l2dm.bases.sampling import Progress, Shot, draw
from l2dm.doors import Concept, Memory
from l2dm.errors import BadDoor
from l2dm.files.manifest import Door
from l2dm.metrics import alignment
from l2dm.spec import SamplingSpec, Spec

METRICS = ("image_alignment", "text_alignment", "identity_similarity", "identity_accuracy")
DIGITS = 6  # of a stored value: below them is only noise of batch sizes and thread counts

Draw = Callable[[Model, Sequence[Shot], SamplingSpec], Tensor]
Value = Mapping[str, Any]


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
        """The same by the pretrained base."""
        with self.model.plain():
            return self(shots)


@dataclass(frozen=True)
class Subject:
    """Who is examined, by whom, and how many pictures it may cost."""

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
    values: tuple[Value, ...]

    def mean(self, metric: str) -> float:
        """What the matrix holds."""
        return round(fmean(value["metrics"][metric] for value in self.values), DIGITS)


def read_known(memory: Door[Memory], concepts: Sequence[Concept], distractors: Tensor) -> Known:
    """The real features of some concepts, from memory. Raises BadDoor when one is missing."""
    features = load_file(memory.path("long_term.safetensors")) if concepts else {}
    wanted = {f"{concept.name}/{kind}" for concept in concepts for kind in ("image", "identity")}
    missing = sorted(wanted - features.keys())
    if missing:
        raise BadDoor(
            f"expected features of every concept in {memory.folder}, found no {missing}; "
            "run score_memory again"
        )
    return Known(
        image={one.name: features[f"{one.name}/image"].float() for one in concepts},
        identity={one.name: features[f"{one.name}/identity"].float() for one in concepts},
        distractors=distractors,
    )


def measure(
    subject: Subject, known: Known, concept: Concept, shots: Sequence[Shot], row: str
) -> Cell:
    """Draw a concept and measure every picture; `row` names the model in the values.

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
    values = tuple(
        value_of(row, shot, {metric: float(found[index]) for metric, found in measured.items()})
        | {"concept": concept.name}
        for index, shot in enumerate(shots)
    )
    return Cell(pictures, values)


def shots_of(phrase: str, count: int, seed: int) -> tuple[Shot, ...]:
    """The fixed prompts and seeds: templates in turn, consecutive seeds."""
    templates = EVALUATION_TEMPLATES
    return tuple(
        Shot(templates[index % len(templates)].format(phrase), seed + index)
        for index in range(count)
    )


def value_of(row: str, shot: Shot, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One entry of values.json, without what it shows."""
    rounded = {metric: round(found, DIGITS) for metric, found in metrics.items()}
    return {"row": row, "prompt": shot.prompt, "seed": shot.seed, "metrics": rounded}


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
