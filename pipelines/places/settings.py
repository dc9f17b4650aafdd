"""Where and on what steps run: `l2dm.toml`, one frozen table per section, read whole or refused.

What a task learns is the spec's (`l2dm/spec.py`); this file says on which machines, with which
image and rights. `l2dm settings` prints every key, docs/cluster.md tells them at length.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, core_schema

from l2dm import redaction
from l2dm.errors import BadInput, BadSettings, words
from l2dm.sections import Section, refusal

NOUN = "l2dm.toml"
MAX_FILE = 1_000_000  # bytes
Problem = tuple[tuple[str, ...], str]  # key below the own one, what is wrong with it

SIZE = re.compile(r"(\d+)(M|G|T|Ki|Mi|Gi|Ti)?")  # what kfp takes, too
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNITS = {"": 1, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)}


@dataclass(frozen=True)
class TextPattern:
    """How a text must be written: as a pattern and in words, why, and what else could be done."""

    pattern: str
    expected: str
    because: str = ""
    instead: str = ""

    def checked(self, text: str) -> str:
        """The same text. Raises what a validator raises."""
        if not re.fullmatch(self.pattern, text):
            raise refusal(f"expected {self.expected}{self.because}, found {text!r}{self.instead}")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Beside a field's type: its texts are checked."""
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """For forms."""
        return {**handler(schema), "pattern": f"^({self.pattern})$"}


def _refuse(problems: Iterable[Problem]) -> None:
    """For a validator: raise what is wrong with the keys below its own, if anything is."""
    found = [InitErrorDetails(type=refusal(what), loc=key, input=None) for key, what in problems]
    if found:
        raise ValidationError.from_exception_data(NOUN, found)


def _public(variables: Mapping[str, str]) -> Mapping[str, str]:
    _refuse(_environment_problems(variables))
    return variables


def _environment_problems(variables: Mapping[str, str]) -> Iterator[Problem]:
    for name, value in variables.items():
        if not VARIABLE.fullmatch(name):
            yield (name,), "expected letters, digits and _ as a variable's name"
        elif redaction.is_secret(name):
            yield (
                (name,),
                "expected no secret here, because whoever sees the pipeline reads it; name a "
                "Kubernetes Secret in [secrets], or the variable in docker.forward",
            )
        elif redaction.holds_login(value):
            yield (
                (name,),
                "expected no user:password@ and no ?token= in an address, because whoever sees the "
                "pipeline reads it, found one; leave it out and give both as variables of "
                "[secrets], or the whole address as one",
            )


POSITIVE = r"(?=.*[1-9])"
Cores = Annotated[
    str, TextPattern(rf"{POSITIVE}(\d+(\.\d+)?|\d+m)", 'an amount like "4" or "500m"')
]
Bytes = Annotated[str, TextPattern(POSITIVE + SIZE.pattern, 'an amount like "16Gi"')]
BytesOrZero = Annotated[str, TextPattern(SIZE.pattern, 'an amount like "2Gi"')]
BytesOrNothing = Annotated[str, TextPattern(f"|{SIZE.pattern}", 'an amount like "2Gi"')]
ClaimName = Annotated[str, TextPattern(r"[\s\S]+", "the name of a PersistentVolumeClaim")]
MountPath = Annotated[str, TextPattern("/[^:]*[^:/]", "an absolute path, not /")]
Address = Annotated[str, TextPattern(r"|https?://[^\s/].*", "http(s)://...")]
Socket = Annotated[str, TextPattern("|.*://.*", "unix:///... or tcp://...")]
UserAndGroup = Annotated[str, TextPattern(r"|\d+:\d+", '"uid:gid" in numbers')]
VariableName = Annotated[str, TextPattern(VARIABLE.pattern, "a variable's name")]
ImageByDigest = Annotated[
    str,
    TextPattern(
        r"|\S+@sha256:[0-9a-f]{64}",
        "name@sha256:<64 digits>",
        ", because a tag may name other bytes tomorrow",
        "; a tag of this machine goes into docker.image",
    ),
]
Environment = Annotated[Mapping[str, str], AfterValidator(_public)]


class _Table(Section):
    """One table of l2dm.toml."""

    NOUN: ClassVar[str] = NOUN
    TABLE: ClassVar[str] = "a table"
    ERROR: ClassVar[type[BadInput]] = BadSettings


class Gpu(_Table):
    """Accelerators of a step."""

    count: int = Field(1, ge=0, description="how many")
    type: str = Field("nvidia.com/gpu", description="the resource's name as the nodes offer it")


class Retry(_Table):
    """How often the cluster repeats a failed step before the run fails."""

    times: int = Field(0, ge=0, le=10, description="repetitions")
    wait: int = Field(30, ge=0, description="seconds before the first repetition")
    factor: float = Field(2.0, ge=1, description="by which each further wait is longer")
    longest: int = Field(
        600,
        ge=0,
        description="seconds that a wait gets at most; not under `wait`",
        validate_default=True,
    )

    @field_validator("longest")
    @classmethod
    def _at_least_the_first(cls, value: int, info: ValidationInfo) -> int:
        wait = info.data.get("wait", value)
        if value < wait:
            raise refusal(f"expected at least wait ({wait}), found {value}")
        return value


class Toleration(_Table):
    """A taint of nodes that a step's pod accepts, as Kubernetes writes it."""

    operator: Literal["Equal", "Exists"] = Field("Equal", description="how key and value compare")
    key: str = Field(
        "", description="of the taint; empty, with operator Exists: every", validate_default=True
    )
    value: str = Field("", description="of the taint, for operator Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="of the taint; empty: every"
    )
    seconds: int | None = Field(None, description="until eviction, for effect NoExecute")

    @field_validator("key")
    @classmethod
    def _names_a_taint(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("operator") == "Equal":
            raise refusal("expected the taint's key, or operator Exists for every taint")
        return value

    @field_validator("value")
    @classmethod
    def _is_compared(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("operator") == "Exists":
            raise refusal(f"expected none with operator Exists, found {value!r}")
        return value

    @field_validator("seconds")
    @classmethod
    def _evicts(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("effect", "NoExecute") != "NoExecute":
            raise refusal("expected effect NoExecute with it: only that one evicts")
        return value


class StepSettings(_Table):
    """What one step gets. What is left out is that of [defaults], or the cluster's own."""

    gpu: Gpu | None = Field(None, description="accelerators; none: no request for one")
    cpu_request: Cores | None = Field(None, description="processors that a node must have free")
    cpu_limit: Cores | None = Field(None, description="processors at most")
    memory_request: Bytes | None = Field(None, description="memory that a node must have free")
    memory_limit: Bytes | None = Field(None, description="memory at most; more ends the step")
    shm: Bytes | None = Field(None, description="of /dev/shm, which counts as memory")
    timeout: int | None = Field(None, ge=1, description="seconds until a try is given up")
    retry: Retry | None = Field(None, description="of steps that only compute")
    node_selector: Mapping[str, str] = Field({}, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field(
        (), strict=False, description="taints of nodes that are accepted"
    )
    environment: Environment = Field({}, description="variables of this step, none a secret")

    def over(self, other: "StepSettings") -> "StepSettings":
        """This one where it says something, the other where it does not; collections add up."""
        mine = {name: value for name, value in self if value is not None}
        for name in ("node_selector", "environment"):
            mine[name] = {**getattr(other, name), **getattr(self, name)}
        mine["tolerations"] = (*other.tolerations, *self.tolerations)
        return other.model_copy(update=mine)


class Volume(_Table):
    """A claim (PersistentVolumeClaim) at a path of every step's container."""

    claim: ClaimName = Field(description="name of the PersistentVolumeClaim")
    mount: MountPath = Field(description="where every step's container finds it")
    sub_path: str = Field("", description="folder of the claim; empty: all of it")


class Cluster(_Table):
    """The Kubeflow Pipelines that `--runner cluster` submits to."""

    host: Address = Field("", description='its address, "https://kubeflow.example/pipeline"')
    namespace: str = Field("", description="empty where Kubeflow Pipelines has one user")
    ca: str = Field("", description="PEM file of the authority that signed the certificate")
    token_path: str = Field(
        "", description="file of the service account's token, read again for every request"
    )
    token_variable: str = Field(
        "L2DM_KFP_TOKEN", description="environment variable with a token instead"
    )
    audience: str = Field(
        "pipelines.kubeflow.org", description="that the token must be for; empty does not look"
    )
    service_account: str = Field("", description="that the steps' pods run as")
    pipeline_root: str = Field(
        "", description="where artifacts between steps are kept; empty: the cluster's own"
    )
    pull_secrets: tuple[str, ...] = Field((), strict=False, description="of the image")
    user: int | None = Field(
        None, ge=1, description="number that the steps' pods run as; 0, root, is refused"
    )

    @field_validator("host", mode="before")
    @classmethod
    def _holds_no_password(cls, value: Any) -> Any:
        if isinstance(value, str) and redaction.holds_login(value):
            raise refusal(
                "expected no user:password@, because logs and the settings' ConfigMap show it, "
                "found one; name a token by cluster.token_path or cluster.token_variable"
            )
        return value

    @field_validator("ca")
    @classmethod
    def _is_of_https(cls, value: str, info: ValidationInfo) -> str:
        host = info.data.get("host", "https://")
        if value and not host.startswith("https://"):
            raise refusal(f"expected an https:// host with it, found {host!r}")
        return value

    @field_validator("user", mode="before")
    @classmethod
    def _is_not_root(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise refusal(f"expected a user that is not root, found {value}")
        return value


class Docker(_Table):
    """The containers that `--runner docker` starts, one per step."""

    image: str = Field(
        "", description="one that is only on this machine, by tag; empty: the image of all"
    )
    socket: Socket = Field("", description="of the engine; empty: what DOCKER_HOST says")
    user: UserAndGroup = Field(
        "", description="that steps run as; empty: whoever starts the dispatcher"
    )
    network: str = Field("bridge", description="of the engine, `host` or `none`")
    cpus: float = Field(0.0, ge=0, description="processors of a container at most; 0: all")
    memory: BytesOrNothing = Field("", description="at most; empty: no limit")
    shm: BytesOrZero = Field("1Gi", description="of /dev/shm")
    tmp: BytesOrZero = Field(
        "2Gi", description="of /tmp, the one folder beside the state where a step may write"
    )
    processes: int = Field(1024, ge=1, description="of a container at most")
    gpus: int = Field(0, ge=0, description="of a container; needs the NVIDIA container toolkit")
    forward: tuple[VariableName, ...] = Field(
        (), strict=False, description="environment variables that are handed on, e.g. of S3"
    )


class Settings(_Table):
    """Everything in an l2dm.toml. Raises BadSettings with every value that cannot be."""

    image: ImageByDigest = Field("", description="of every step")
    environment: Environment = Field({}, description="variables of every step, none a secret")
    secrets: Mapping[str, Mapping[str, str]] = Field(
        {}, description="Kubernetes Secrets as variables: [secrets.<name>], VARIABLE = its key"
    )
    bases: Volume | None = Field(None, description="base models, for --base")
    scratch: Volume | None = Field(None, description="checkpoints and class pictures")
    defaults: StepSettings = Field(StepSettings(), description="of every step")
    steps: Mapping[str, StepSettings] = Field(
        {}, description="[steps.<name of a component>]: the keys of [defaults]"
    )
    cluster: Cluster = Field(Cluster(), description="for --runner cluster")
    docker: Docker = Field(Docker(), description="for --runner docker")

    @field_validator("secrets")
    @classmethod
    def _set_variables_once(
        cls, value: Mapping[str, Mapping[str, str]], info: ValidationInfo
    ) -> Mapping[str, Mapping[str, str]]:
        _refuse(_secret_problems(value, set(info.data.get("environment", ()))))
        return value

    @field_validator("scratch")
    @classmethod
    def _is_elsewhere(cls, value: Volume | None, info: ValidationInfo) -> Volume | None:
        bases = info.data.get("bases")
        if value and bases and value.mount == bases.mount:
            _refuse(
                [(("mount",), f"expected another path than that of bases, found {value.mount!r}")]
            )
        return value

    @field_validator("defaults")
    @classmethod
    def _within_limits(cls, value: StepSettings) -> StepSettings:
        _refuse(_limit_problems(value, value))
        return value

    @field_validator("steps")
    @classmethod
    def _each_within_limits(
        cls, value: Mapping[str, StepSettings], info: ValidationInfo
    ) -> Mapping[str, StepSettings]:
        defaults = info.data.get("defaults", StepSettings())
        _refuse(
            ((name, *key), what)
            for name, own in value.items()
            for key, what in _limit_problems(own, own.over(defaults))
        )
        return value

    def step(self, name: str) -> StepSettings:
        """What a step gets, by the name of its component: its own table over [defaults]."""
        return self.steps.get(name, StepSettings()).over(self.defaults)


def load(path: Path) -> Settings:
    """The settings of a file. Raises BadSettings with everything that is wrong with it."""
    try:
        if path.is_file() and path.stat().st_size > MAX_FILE:
            raise BadSettings(f"expected settings up to {MAX_FILE:,} bytes in {path}, found more")
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(
            f"expected settings in {path}, could not read it: {words(error)}"
        ) from error
    except (ValueError, RecursionError) as error:  # also brackets or digits without end
        raise BadSettings(f"expected TOML in {path}, found: {str(error)[:300]}") from error
    return parse(data)


def parse(data: Mapping[str, Any]) -> Settings:
    """Settings from nested mappings. Raises BadSettings."""
    return Settings(**data)


def to_json(settings: Settings) -> str:
    """For another process; `parse` of it is the same settings. Holds names of secrets only."""
    return json.dumps(settings.model_dump(), sort_keys=True)


def cores(text: str) -> float:
    """How many processors "4", "0.5" or "500m" are."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text: str) -> int:
    """How many bytes "512Mi" or "2G" are."""
    found = SIZE.fullmatch(text)
    assert found is not None
    return int(found[1]) * UNITS[found[2] or ""]


def _secret_problems(
    secrets: Mapping[str, Mapping[str, str]], taken: set[str]
) -> Iterator[Problem]:
    for secret, variables in secrets.items():
        for name, key in variables.items():
            at = (secret, name)
            if not VARIABLE.fullmatch(name):
                yield at, "expected letters, digits and _ as a variable's name"
            if not key:
                yield at, "expected the key within the Secret, found nothing"
            if name in taken:
                yield at, "expected a variable that is set once, found it set before"
            taken.add(name)


def _limit_problems(own: StepSettings, whole: StepSettings) -> Iterator[Problem]:
    """own: as the table says; whole: over the defaults. Told of the table that says either."""
    measures: dict[str, Callable[[str], float]] = {"cpu": cores, "memory": size}
    for name, measure in measures.items():
        keys = (f"{name}_request", f"{name}_limit")
        least, most = (getattr(whole, key) for key in keys)
        says = any(getattr(own, key) for key in keys)
        if says and least and most and measure(least) > measure(most):
            yield (keys[0],), f"expected at most the limit {most}, found {least}"
