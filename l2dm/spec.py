"""What a user may choose, one frozen dataclass per step. Defaults live here and nowhere else.

`parse({"train": {"steps": 300}})` and `override(spec, ["train.steps=300"])` refuse unknown keys
and name the nearest known one; values are checked when a spec is made.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from l2dm.errors import BadSpec
from l2dm.files.typed import build

Method = Literal["l2dm", "gated", "sequential"]
AdapterKind = Literal["lowrank", "spectral"]
GateKind = Literal["token", "span", "prompt"]
Selection = Literal["scored", "random"]
Precision = Literal["fp32", "bf16"]
Policy = Literal["tell", "roll_back"]


@dataclass(frozen=True)
class IntakeSpec:
    """Which uploads are accepted."""

    min_pictures: int = 3
    max_pictures: int = 20
    min_side: int = 48  # pixels; smaller pictures are refused
    max_pixels: int = 50_000_000  # per picture; more is an image bomb
    max_bytes: int = 30_000_000  # per picture
    near_duplicate_bits: int = 4  # of 64+64 dHash bits; as near and alike in colour = the same


@dataclass(frozen=True)
class SamplingSpec:
    """How pictures are drawn. 0 means: what the base recommends."""

    steps: int = 0  # denoising steps
    guidance: float = 0.0  # classifier-free guidance scale
    batch: int = 16  # pictures at once


@dataclass(frozen=True)
class PriorSpec:
    """Class pictures from the pretrained base."""

    count: int = 32  # pictures per class noun
    max_nouns: int = 16  # class nouns kept; the new concept's first, then the latest


@dataclass(frozen=True)
class MemorySpec:
    """The rainbow-memory bank (L2DM, Algorithm 1)."""

    candidates: int = 4  # eta: generated pictures per stored prompt
    fidelity: float = 1.0  # beta_s of Eq. 5: weight of closeness to the real feature
    budget: int = 160  # candidates per task over all concepts, so cost stays flat in K
    selection: Selection = "scored"  # "random" is the control
    floor: float = -1.0  # candidates with cosine to the real feature under this are not replayed
    fan_out: int = 0  # concepts of a line above which `shards` tasks draw the candidates; 0: never
    shards: int = 2


@dataclass(frozen=True)
class TrainSpec:
    """How an adapter is learned."""

    method: Method = "l2dm"
    adapter: AdapterKind = "lowrank"  # of l2dm and sequential
    gate: GateKind = "token"  # of gated
    rank: int = 8
    steps: int = 200  # optimizer steps
    batch: int = 8  # new pictures per step
    replay_batch: int = 4  # replayed and class pictures per step, each
    rate: float = 1e-3  # AdamW learning rate of adapter weights
    token_rate: float = 5e-3  # of the placeholder's embedding row
    replay: float = 0.2  # alpha of Eq. 4
    prior: float = 0.25  # beta of Eq. 4
    distill: float = 3.0  # gamma of ECD, Eq. 6; all three from docs/sweep.md
    precision: Precision = "fp32"
    checkpoint_every: int = 50  # steps between checkpoints; 0: none
    processes: int = 1  # that share every batch: one GPU each where there are any, else the cores


@dataclass(frozen=True)
class EvaluateSpec:
    """The new row of every matrix."""

    pictures: int = 8  # per concept and per class noun
    budget: int = 120  # pictures per row over all concepts, so cost stays flat in K
    distractors: int = 100  # foreign identities beside the known ones
    resamples: int = 1000  # bootstrap
    seed: int = 70_000  # of the pictures: fixed, so that rows can be compared
    fan_out: int = 0  # concepts of a line above which `shards` tasks draw the pictures; 0: never
    shards: int = 2


@dataclass(frozen=True)
class GateSpec:
    """When a challenger becomes the champion."""

    min_identity: float = 0.5  # identity accuracy of the new concept, [0, 1]
    max_forgetting: float = 0.25  # drop of identity similarity, any past concept
    max_drift: float = 0.35  # distance of class prompts to the base, mean over nouns


@dataclass(frozen=True)
class CheckSpec:
    """Scheduled checks: does the champion still draw what it drew at its release?"""

    policy: Policy = "tell"  # what follows a regression; roll_back: to the last healthy version
    margin: float = 0.1  # drop of identity similarity that counts as forgotten
    alpha: float = 0.05  # share of healthy nights that may be called regressed by chance
    power: float = 0.9  # chance to decide with as many pictures as `inconclusive` names


@dataclass(frozen=True)
class Spec:
    """Everything a user may choose for one task."""

    seed: int = 0
    intake: IntakeSpec = field(default_factory=IntakeSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    prior: PriorSpec = field(default_factory=PriorSpec)
    memory: MemorySpec = field(default_factory=MemorySpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    gate: GateSpec = field(default_factory=GateSpec)
    check: CheckSpec = field(default_factory=CheckSpec)

    def __post_init__(self) -> None:
        """Raise BadSpec with every value that is out of range."""
        problems = [f"spec {where}: {what}" for where, what in _out_of_range(self)]
        if problems:
            raise BadSpec(problems)


def to_dict(spec: Spec) -> dict[str, Any]:
    """The resolved spec as JSON-able data; `parse` is its inverse."""
    return asdict(spec)


def recorded(spec: Spec) -> dict[str, Any]:
    """The spec as a door records it: without what changes no byte of any door.

    That is what counts in later checks, how the drawing was shared out, and `train.processes` while
    it is 1: several processes add in another order.
    """
    data = to_dict(spec)
    del data["check"]
    for section in ("memory", "evaluate"):
        for key in ("fan_out", "shards"):
            del data[section][key]
    if spec.train.processes == 1:
        del data["train"]["processes"]
    return data


def to_json(spec: Spec) -> str:
    """One line of JSON, keys sorted: equal specs give equal text."""
    return json.dumps(to_dict(spec), sort_keys=True)


def parse(data: Mapping[str, Any]) -> Spec:
    """A spec from nested mappings; keys that are left out keep their defaults. Raises BadSpec."""
    return build(Spec, data, "spec", BadSpec)


def from_json(text: str) -> Spec:
    """A spec from JSON text. Raises BadSpec."""
    try:
        data = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise BadSpec(f"spec is not JSON ({error}); expected an object such as {{}}") from error
    if not isinstance(data, dict):
        raise BadSpec(f"spec must be a JSON object, found {type(data).__name__}")
    return parse(data)


def override(spec: Spec, settings: Sequence[str]) -> Spec:
    """A spec with `section.key=value` settings applied, as the command line's --set gives them."""
    data = to_dict(spec)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise BadSpec(f"setting {setting!r}: expected section.key=value, e.g. train.steps=300")
        at = data
        *sections, key = path.split(".")
        for section in sections:
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                raise BadSpec(f"setting {setting!r}: {section!r} has no keys of its own")
        at[key] = _literal(text)
    return parse(data)


def with_method(spec: Spec, method: Method) -> Spec:
    """The same spec for another method."""
    return replace(spec, train=replace(spec.train, method=method))


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _out_of_range(spec: Spec) -> list[tuple[str, str]]:
    at_least_one = {
        "intake.min_pictures": spec.intake.min_pictures,
        "intake.min_side": spec.intake.min_side,
        "intake.max_pixels": spec.intake.max_pixels,
        "intake.max_bytes": spec.intake.max_bytes,
        "sampling.batch": spec.sampling.batch,
        "prior.count": spec.prior.count,
        "prior.max_nouns": spec.prior.max_nouns,
        "memory.candidates": spec.memory.candidates,
        "memory.budget": spec.memory.budget,
        "memory.shards": spec.memory.shards,
        "train.rank": spec.train.rank,
        "train.steps": spec.train.steps,
        "train.batch": spec.train.batch,
        "train.replay_batch": spec.train.replay_batch,
        "train.processes": spec.train.processes,
        "evaluate.pictures": spec.evaluate.pictures,
        "evaluate.budget": spec.evaluate.budget,
        "evaluate.resamples": spec.evaluate.resamples,
        "evaluate.shards": spec.evaluate.shards,
    }
    not_negative = {
        "seed": spec.seed,
        "sampling.steps": spec.sampling.steps,
        "sampling.guidance": spec.sampling.guidance,
        "memory.fan_out": spec.memory.fan_out,
        "memory.fidelity": spec.memory.fidelity,
        "train.replay": spec.train.replay,
        "train.prior": spec.train.prior,
        "train.distill": spec.train.distill,
        "train.rate": spec.train.rate,
        "train.token_rate": spec.train.token_rate,
        "train.checkpoint_every": spec.train.checkpoint_every,
        "intake.near_duplicate_bits": spec.intake.near_duplicate_bits,
        "evaluate.distractors": spec.evaluate.distractors,
        "evaluate.fan_out": spec.evaluate.fan_out,
        "evaluate.seed": spec.evaluate.seed,
    }
    found = [
        (where, f"expected at least 1, found {value}")
        for where, value in at_least_one.items()
        if not value >= 1
    ]
    found += [
        (where, f"expected a number that is not negative, found {value}")
        for where, value in not_negative.items()
        if not 0 <= value < float("inf")
    ]
    any_number = {
        "memory.floor": spec.memory.floor,
        "gate.min_identity": spec.gate.min_identity,
        "gate.max_forgetting": spec.gate.max_forgetting,
        "gate.max_drift": spec.gate.max_drift,
    }
    found += [
        (where, f"expected a finite number, found {value}")
        for where, value in any_number.items()
        if not math.isfinite(value)
    ]
    shares = {"check.alpha": spec.check.alpha, "check.power": spec.check.power}
    found += [
        (where, f"expected a number between 0 and 1, found {value}")
        for where, value in shares.items()
        if not 0 < value < 1
    ]
    if not 0 < spec.check.margin < float("inf"):
        found.append(("check.margin", f"expected a number over 0, found {spec.check.margin}"))
    if spec.intake.max_pictures < spec.intake.min_pictures:
        found.append(
            (
                "intake.max_pictures",
                f"expected at least min_pictures ({spec.intake.min_pictures}), "
                f"found {spec.intake.max_pictures}",
            )
        )
    if spec.train.processes > max(1, spec.train.batch):
        found.append(
            (
                "train.processes",
                f"expected at most train.batch ({spec.train.batch}), so that each has a new "
                f"picture, found {spec.train.processes}",
            )
        )
    return found
