"""What a user may choose, one frozen section per step. Defaults live here and nowhere else.

Beside the sections of the steps a spec may hold one of the chosen method, under its name: the
options that its page declares (`l2dm.methods.registry`). Those that nobody set stay unsaid until a
step asks for them, because to read a page is to load torch.

`parse({"train": {"steps": 300}})` and `override(spec, ["train.steps=300"])` refuse unknown keys
and name the nearest known one; values are checked when a spec is made.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticKnownError

from l2dm.errors import BadSpec
from l2dm.methods import registry
from l2dm.outside import read_json
from l2dm.sections import KEPT, Section, nearest, one_of, refusal

MAX_SEED = 2**62  # what is added to it stays below 2**63
MAX_STEPS = 10_000_000  # of a training
MAX_SETTING, MAX_DOTS = 10_000, 3  # characters and dots of a --set
Selection = Literal["scored", "random"]
Precision = Literal["fp32", "bf16"]
Policy = Literal["tell", "roll_back"]


LEVELS_OF_A_BIT = 5.75  # of `near_duplicate_bits`, as `copy_levels` was called before


class IntakeSpec(Section):
    """Which uploads are accepted."""

    AT: ClassVar = "intake."
    RENAMED: ClassVar = {
        "near_duplicate_bits": "intake.copy_levels, which counts levels of 255; 4 bits are 23"
    }

    min_pictures: int = Field(3, ge=1, le=1000, description="fewest pictures of an upload")
    max_pictures: int = Field(
        20, ge=1, le=1000, description="most pictures of an upload", validate_default=True
    )
    min_side: int = Field(48, ge=1, le=16384, description="pixels; smaller pictures are refused")
    min_share: float = Field(
        0.5, ge=0, description="of the base's resolution that the smaller side has at least"
    )
    max_pixels: int = Field(
        50_000_000, ge=1, le=1_000_000_000, description="of a picture, at most; against image bombs"
    )
    max_bytes: int = Field(
        30_000_000, ge=1, le=10_000_000_000, description="of a picture's file, at most"
    )
    copy_levels: int = Field(
        23,
        ge=0,
        le=255,
        description="of 255: two pictures that differ by less in every place are one picture twice;"
        " 0: only if all pixels are nearly equal",
    )

    @field_validator("max_pictures")
    @classmethod
    def _over_the_fewest(cls, value: int, info: ValidationInfo) -> int:
        fewest = info.data.get("min_pictures", value)
        if value < fewest:
            raise refusal(f"expected at least min_pictures ({fewest}), found {value}")
        return value

    @staticmethod
    def as_called_now(data: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of this table as a program may have kept them under their former names.

        Whole levels are no more than the bits allowed, so what was accepted still is.
        """
        found = dict(data)
        bits = found.get("near_duplicate_bits")
        if isinstance(bits, int) and not isinstance(bits, bool) and 0 <= bits <= 128:
            del found["near_duplicate_bits"]
            found.setdefault("copy_levels", min(255, math.floor(LEVELS_OF_A_BIT * bits)))
        return found


class SamplingSpec(Section):
    """How pictures are drawn. 0 means: what the base recommends."""

    AT: ClassVar = "sampling."

    steps: int = Field(0, ge=0, le=1000, description="denoising steps; 0: what the base recommends")
    guidance: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="classifier-free guidance scale; 0: what the base recommends",
    )
    batch: int = Field(16, ge=1, le=4096, description="pictures at once")


class PriorSpec(Section):
    """Class pictures from the pretrained base."""

    AT: ClassVar = "prior."

    count: int = Field(32, ge=1, le=100_000, description="pictures per class noun")
    max_nouns: int = Field(
        16,
        ge=1,
        le=10_000,
        description="class nouns kept; the new concept's first, then the latest",
    )


class MemorySpec(Section):
    """The rainbow-memory bank (L2DM, Algorithm 1)."""

    AT: ClassVar = "memory."

    candidates: int = Field(
        4, ge=1, le=10_000, description="eta: generated pictures per stored prompt"
    )
    fidelity: float = Field(
        1.0, ge=0, le=1000, description="beta_s of Eq. 5: weight of closeness to the real feature"
    )
    budget: int = Field(
        160,
        ge=1,
        le=1_000_000,
        description="candidates per task over all concepts, so cost stays flat in K",
    )
    selection: Selection = Field(
        "scored",
        description="how replayed pictures are chosen: by Eq. 5, or at random, as a control",
    )
    floor: float = Field(
        -1.0, description="cosine to the real feature that a replayed candidate has at least"
    )
    fan_out: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="concepts of a line above which `shards` tasks draw the candidates; 0: never",
    )
    shards: int = Field(
        2, ge=1, le=1000, description="tasks that draw the candidates of a long line"
    )


def _known_method(value: Any) -> Any:
    if value not in registry.names():
        raise refusal(f"expected {one_of(registry.names())}, found {value!r}")
    if value in Spec.model_fields:
        raise refusal(
            f"expected a method with a name of its own, found section {value!r} of the spec"
        )
    return value


def _name_methods(schema: dict[str, Any]) -> None:
    schema["enum"] = list(registry.names())


class TrainSpec(Section):
    """How an adapter is learned: what all methods share."""

    AT: ClassVar = "train."

    method: Annotated[str, BeforeValidator(_known_method)] = Field(
        "gated",  # what docs/results.md recommends: it forgets nothing, at the smallest cost
        description="a page of l2dm/methods; its own options are `<method>.<key>`; a line keeps it",
        json_schema_extra=_name_methods,
    )
    rank: int = Field(
        8,
        ge=1,
        le=4096,
        description="rank of low-rank and gated adapters; a line keeps it",
        json_schema_extra=KEPT,
    )
    steps: int = Field(200, ge=1, description="optimizer steps")
    batch: int = Field(8, ge=1, le=4096, description="new pictures per step")
    rate: float = Field(
        3e-3, ge=0, description="AdamW learning rate of adapter weights; 0: they stay as they are"
    )
    token_rate: float = Field(
        5e-3, ge=0, description="learning rate of the placeholder's embedding row; 0: it stays"
    )
    precision: Precision = Field("fp32", description="numbers of the forward pass")
    checkpoint_every: int = Field(
        50, ge=0, le=10_000_000, description="steps between checkpoints; 0: none"
    )
    processes: int = Field(
        1,
        ge=1,
        le=1024,
        description="processes that share every batch: a GPU each, or the cores",
    )

    @field_validator("steps", "rate", "token_rate")
    @classmethod
    def _within_reason(cls, value: float) -> float:
        if value > MAX_STEPS:
            raise refusal(f"expected at most {MAX_STEPS:,}, found {value}")
        return value

    @field_validator("token_rate")
    @classmethod
    def _something_learns(cls, value: float, info: ValidationInfo) -> float:
        if not value and info.data.get("rate") == 0:
            raise refusal(f"expected a number over 0 where train.rate is 0, found {value}")
        return value

    @field_validator("processes")
    @classmethod
    def _a_picture_each(cls, value: int, info: ValidationInfo) -> int:
        batch = info.data.get("batch", value)
        if value > batch:
            raise refusal(
                f"expected at most train.batch ({batch}), so that each has a new picture, "
                f"found {value}"
            )
        return value


class EvaluateSpec(Section):
    """The new row of every matrix."""

    AT: ClassVar = "evaluate."

    pictures: int = Field(
        8, ge=1, le=100_000, description="pictures per concept and per class noun"
    )
    budget: int = Field(
        120,
        ge=1,
        le=1_000_000,
        description="pictures per row over all concepts, so cost stays flat in K",
    )
    distractors: int = Field(
        100, ge=0, le=1_000_000, description="foreign identities beside the known ones"
    )
    resamples: int = Field(1000, ge=1, le=1_000_000, description="resamples of the bootstrap")
    seed: int = Field(
        70_000,
        ge=0,
        le=MAX_SEED,
        description="seed of the pictures: fixed, so that rows can be compared",
    )
    fan_out: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="concepts of a line above which `shards` tasks draw the pictures; 0: never",
    )
    shards: int = Field(2, ge=1, le=1000, description="tasks that draw the pictures of a long line")


class GateSpec(Section):
    """When a challenger becomes the champion."""

    AT: ClassVar = "gate."

    min_identity: float = Field(
        0.5, description="identity accuracy that the new concept needs, 0 to 1"
    )
    max_forgetting: float = Field(
        0.25, description="largest drop of identity similarity that a past concept may have"
    )
    max_drift: float = Field(
        0.35, description="largest distance of class prompts to the base, mean over nouns"
    )
    max_text_loss: float = Field(
        0.4,
        ge=0,
        description="largest share of the base's text alignment that the new concept may lack",
    )


class CheckSpec(Section):
    """Scheduled checks: does the champion still draw what it drew at its release?"""

    AT: ClassVar = "check."

    policy: Policy = Field(
        "tell", description="what follows a regression; roll_back: to the last healthy version"
    )
    margin: float = Field(
        0.1, gt=0, description="drop of identity similarity that counts as forgotten"
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="share of healthy checks that may call a regression"
    )
    power: float = Field(
        0.9, gt=0, lt=1, description="chance to decide with the pictures that `inconclusive` names"
    )


class _Given(NamedTuple):
    """A method's section as it was written. chosen: the spec's method, None if it is unknown."""

    method: str
    chosen: str | None
    options: Any


def _read_given(value: Any) -> dict[str, Any]:
    """What a method's section changes. Keys that are no method's name are refused as unknown."""
    if not isinstance(value, _Given):
        raise PydanticKnownError("extra_forbidden")
    if not isinstance(value.options, Mapping):
        raise refusal(f"expected {Spec.TABLE}, found {value.options!r}")
    if value.chosen is None or not value.options:
        return {}
    if value.chosen != value.method:
        raise _foreign(value.method, value.chosen, value.options)
    kind = registry.options(value.method)
    return _changes(kind.model_validate(value.options), kind())


def _changes(options: Section, defaults: Section) -> dict[str, Any]:
    """Equal specs are equal texts, whether a default was set or left unsaid."""
    return {key: value for key, value in options if value != getattr(defaults, key)}


def _foreign(method: str, chosen: str, options: Mapping[str, Any]) -> ValidationError:
    own = [f"{chosen}.{key}" for key in registry.options(chosen).model_fields]
    problems = []
    for key, value in options.items():
        hint = f"; nearest known key: {nearest(key, own)}" if own else ", which has none"
        sentence = f"expected an option of the chosen method {chosen!r}, found one of {method!r}"
        problems.append(InitErrorDetails(type=refusal(sentence + hint), loc=(key,), input=value))
    return ValidationError.from_exception_data("Spec", problems)


class Spec(Section):
    """Everything a user may choose for one task.

    What is set of the chosen method's own options stands under the method's name; `options_of`
    gives all of them.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_read_given)]]

    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="the line's seed; those of its tasks are derived from it"
    )
    intake: IntakeSpec = IntakeSpec()
    sampling: SamplingSpec = SamplingSpec()
    prior: PriorSpec = PriorSpec()
    memory: MemorySpec = MemorySpec()
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    gate: GateSpec = GateSpec()
    check: CheckSpec = CheckSpec()

    @model_validator(mode="before")
    @classmethod
    def _mark_methods(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        methods, chosen = set(registry.names()) - cls.model_fields.keys(), _chosen(data)
        return {
            key: _Given(key, chosen, value) if key in methods else value
            for key, value in data.items()
        }

    @model_validator(mode="after")
    def _drop_empty(self) -> "Spec":
        extra = self.__pydantic_extra__
        for method in [method for method, changes in extra.items() if not changes]:
            del extra[method]
        return self

    @classmethod
    def inner(cls, key: str) -> type[Section] | None:
        """A method's own options."""
        return registry.options(key) if key in registry.names() else None

    @classmethod
    def keys(cls, data: Mapping[str, Any]) -> list[str]:
        """Those of training first, then those of methods, the chosen one before the others."""
        own = super().keys(data)
        chosen = _chosen(data)
        methods = registry.every_options()
        options = [
            f"{method}.{key}"
            for method in sorted(methods, key=lambda method: method != chosen)
            for key in methods[method].model_fields
        ]
        training = [key for key in own if key.startswith(TrainSpec.AT)]
        return [*training, *options, *(key for key in own if key not in training)]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """With a section for every method."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        schema["additionalProperties"] = False
        for method, options in registry.every_options().items():
            schema["properties"][method] = handler(options.__pydantic_core_schema__)
        return schema


def options_of(spec: Spec) -> Any:
    """The chosen method's own options, an instance of its page's OPTIONS. Imports the page."""
    changes = (spec.__pydantic_extra__ or {}).get(spec.train.method, {})
    return registry.options(spec.train.method)(**changes)


def kept(spec: Spec) -> dict[str, Any]:
    """What a line keeps of a spec from its first task on, by dotted key: method and adapter.

    Method first, then every key that is marked as KEPT. Imports the method's page.
    """
    return kept_of(resolved(spec), spec.train.method)


def kept_of(data: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The same of a spec as a door records it; keys that an older door lacks are left out."""
    sections = {"train": TrainSpec}
    if method in registry.names():  # else of a package that is not installed here
        sections[method] = registry.options(method)
    found = {"train.method": method}
    for at, section in sections.items():
        for key, info in section.model_fields.items():
            if info.json_schema_extra == KEPT and key in data.get(at, {}):
                found[f"{at}.{key}"] = data[at][key]
    return found


def may_replay(spec: Spec) -> bool:
    """Whether the chosen method may ask for pictures of past concepts. Imports no page."""
    return registry.page(spec.train.method).replays


def to_dict(spec: Spec) -> dict[str, Any]:
    """The spec as JSON-able data; `parse` is its inverse.

    A method's options are in it where they differ from their defaults.
    """
    return spec.model_dump()


def resolved(spec: Spec) -> dict[str, Any]:
    """The same with every option of the chosen method. Imports its page."""
    return to_dict(spec) | {spec.train.method: options_of(spec).model_dump()}


def recorded(spec: Spec) -> dict[str, Any]:
    """The spec as a door records it: resolved, without the keys that change no byte of a door.

    Left out are `check` (it judges later), how many shards draw, and `train.processes` if it is 1.
    With more it is recorded, because several processes add numbers in another order.
    """
    data = resolved(spec)
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
    return Spec(**data)


def from_json(text: str) -> Spec:
    """A spec from JSON text, which an earlier release may have written. Raises BadSpec."""
    try:
        data = read_json(text or "{}")
    except ValueError as error:
        raise BadSpec(f"spec is not JSON ({error}); expected an object such as {{}}") from error
    if not isinstance(data, dict):
        raise BadSpec(f"spec must be a JSON object, found {type(data).__name__}")
    if isinstance(intake := data.get("intake"), dict):
        data["intake"] = IntakeSpec.as_called_now(intake)
    return parse(data)


def said(settings: Sequence[str]) -> dict[str, Any]:
    """Settings as --set gives them, by dotted key; of two of one key the later. Raises BadSpec."""
    found: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or path.count(".") > MAX_DOTS:
            raise BadSpec(
                f"setting {setting[:80]!r}: expected section.key=value, e.g. train.steps=300"
            )
        if len(setting) > MAX_SETTING:
            raise BadSpec(
                f"setting {path[:80]!r}: expected at most {MAX_SETTING:,} characters, found "
                f"{len(setting):,}"
            )
        found[path] = _literal(path, text)
    return found


def override(spec: Spec, settings: Sequence[str]) -> Spec:
    """A spec with `section.key=value` settings applied, as the command line's --set gives them."""
    data = to_dict(spec)
    for path, value in said(settings).items():
        at = data
        *sections, key = path.split(".")
        for section in sections:
            at = at.setdefault(section, {})
            if not isinstance(at, dict):
                raise BadSpec(f"setting {path!r}: {section!r} has no keys of its own")
        at[key] = value
    return parse(data)


def keeping(spec: Spec, own: Mapping[str, Any]) -> Spec:
    """The spec with what a line keeps of its method's own options; those that are set stay.

    Not checked here, which would import the method's page: whoever reads the spec's JSON does.
    """
    method = spec.train.method
    options = {**own, **(spec.__pydantic_extra__ or {}).get(method, {})}
    return spec.model_copy(update={method: options}) if options else spec


def _chosen(data: Mapping[str, Any]) -> str | None:
    """The method of a spec that is not checked yet, None if there is none of that name."""
    train = data.get("train", {})
    method: Any = TrainSpec.model_fields["method"].default
    if isinstance(train, TrainSpec):
        method = train.method
    elif isinstance(train, Mapping):
        method = train.get("method", method)
    return method if isinstance(method, str) and method in registry.names() else None


def _literal(path: str, text: str) -> Any:
    """JSON where it is JSON, else the text as it stands."""
    try:
        return read_json(text)
    except json.JSONDecodeError:
        return text
    except ValueError as error:
        raise BadSpec(f"setting {path!r}: {error}") from error
