"""Where and on what steps run: `l2dm.toml`, one frozen dataclass per table.

What a task learns is the spec's (`l2dm/spec.py`); this file says on which machines, with which
image and rights. Every key is told in docs/cluster.md.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from l2dm.errors import BadSettings
from l2dm.files.typed import build

NOUN = "l2dm.toml"
Problem = tuple[str, str]  # key, what is wrong with it

DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
CPU = re.compile(r"\d+(\.\d+)?|\d+m")
SIZE = re.compile(r"(\d+)(M|G|T|Ki|Mi|Gi|Ti)?")  # what kfp takes, too
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET = re.compile(
    r"SECRET|PASSWORD|PASSWD|(^|_)PWD(_|$)|(^|_)TOKEN(_|$)|PRIVATE_KEY|API_?KEY"
    r"|(?<!^GOOGLE_APPLICATION_)CREDENTIAL(?!S_FILE)",  # these two name a file
    re.IGNORECASE,
)
LOGIN = re.compile(r"://[^\s/?#@:]*:[^\s/?#@]+@")  # a password within an address
USER = re.compile(r"\d+:\d+")
UNITS = {"": 1, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)}


@dataclass(frozen=True)
class Gpu:
    """Accelerators of a step. type: the resource's name as the cluster's nodes offer it."""

    count: int = 1
    type: str = "nvidia.com/gpu"


@dataclass(frozen=True)
class Retry:
    """How often the cluster repeats a failed step before the run fails."""

    times: int = 0
    wait: int = 30  # seconds before the first repetition
    factor: float = 2.0  # by which each further wait is longer
    longest: int = 600  # seconds


@dataclass(frozen=True)
class Toleration:
    """A taint of nodes that a step's pod accepts, as Kubernetes writes it."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    seconds: int | None = None


@dataclass(frozen=True)
class StepSettings:
    """What one step gets. What is left out is that of [defaults], or the cluster's own."""

    gpu: Gpu | None = None
    cpu_request: str | None = None  # "4", "0.5" or "500m"
    cpu_limit: str | None = None
    memory_request: str | None = None  # "16Gi"
    memory_limit: str | None = None
    shm: str | None = None  # size of /dev/shm, which counts as memory
    timeout: int | None = None  # seconds until a try is given up
    retry: Retry | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: "StepSettings") -> "StepSettings":
        """This one where it says something, the other where it does not; collections add up."""
        mine, theirs = dict(_said(self)), dict(_said(other))
        for name in ("node_selector", "environment"):
            mine[name] = {**theirs.get(name, {}), **mine.get(name, {})}
        mine["tolerations"] = (*other.tolerations, *self.tolerations)
        return StepSettings(**{**theirs, **mine})


@dataclass(frozen=True)
class Volume:
    """A claim (PersistentVolumeClaim) at a path of every step's container."""

    claim: str
    mount: str
    sub_path: str = ""


@dataclass(frozen=True)
class Cluster:
    """The Kubeflow Pipelines that `--runner cluster` submits to."""

    host: str = ""  # "https://kubeflow.example/pipeline"
    namespace: str = ""  # "" where Kubeflow Pipelines has one user
    ca: str = ""  # PEM file of the authority that signed the host's certificate
    token_path: str = ""  # file of the service account's token, read again for every request
    token_variable: str = "L2DM_KFP_TOKEN"  # environment variable with a token instead
    audience: str = "pipelines.kubeflow.org"  # that the token must be for; "" does not look
    service_account: str = ""  # that the steps' pods run as
    pipeline_root: str = ""  # where artifacts between steps are kept; "" is the cluster's own
    pull_secrets: tuple[str, ...] = ()  # of the image
    user: int | None = None  # number that the steps' pods run as; never 0


@dataclass(frozen=True)
class Docker:
    """The containers that `--runner docker` starts, one per step."""

    image: str = ""  # one that is only on this machine, by tag; "" is the image of all
    socket: str = ""  # "unix:///run/podman/podman.sock"; "" is what DOCKER_HOST says
    user: str = ""  # "uid:gid"; "" is whoever starts the dispatcher
    network: str = "bridge"
    cpus: float = 0.0  # 0: all
    memory: str = ""  # "8Gi"; "" is no limit
    shm: str = "1Gi"
    tmp: str = "2Gi"  # of /tmp, the one folder beside the state where a step may write
    processes: int = 1024
    gpus: int = 0
    forward: tuple[str, ...] = ()  # environment variables that are handed on, e.g. of S3


@dataclass(frozen=True)
class Settings:
    """Everything in an l2dm.toml. Raises BadSettings with every value that cannot be."""

    image: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # of every step
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name: variable: key
    bases: Volume | None = None  # base models, for --base
    scratch: Volume | None = None  # checkpoints and class pictures
    defaults: StepSettings = field(default_factory=StepSettings)
    steps: Mapping[str, StepSettings] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)
    docker: Docker = field(default_factory=Docker)

    def __post_init__(self) -> None:
        problems = [f"{NOUN} {where}: {what}" for where, what in _problems(self)]
        if problems:
            raise BadSettings(problems)

    def step(self, name: str) -> StepSettings:
        """What a step gets, by the name of its component: its own table over [defaults]."""
        return self.steps.get(name, StepSettings()).over(self.defaults)


def load(path: Path) -> Settings:
    """The settings of a file. Raises BadSettings with everything that is wrong with it."""
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"expected settings in {path}, could not read it: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"expected TOML in {path}, found: {error}") from error
    return parse(data)


def parse(data: Mapping[str, Any]) -> Settings:
    """Settings from nested mappings. Raises BadSettings."""
    return build(Settings, data, NOUN, BadSettings)


def to_json(settings: Settings) -> str:
    """For another process; `parse` of it is the same settings. Holds names of secrets only."""
    return json.dumps(asdict(settings), sort_keys=True)


def cores(text: str) -> float:
    """How many processors "4", "0.5" or "500m" are."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text: str) -> int:
    """How many bytes "512Mi" or "2G" are."""
    found = SIZE.fullmatch(text)
    assert found is not None
    return int(found[1]) * UNITS[found[2] or ""]


def _said(step: StepSettings) -> Iterator[tuple[str, Any]]:
    for name in (one.name for one in fields(step)):
        value = getattr(step, name)
        if value is not None:
            yield name, value


def _problems(settings: Settings) -> Iterator[Problem]:
    if settings.image and not DIGEST.fullmatch(settings.image):
        yield (
            "image",
            "expected name@sha256:<64 digits>, because a tag may name other bytes tomorrow, "
            f"found {settings.image!r}; a tag of this machine goes into docker.image",
        )
    yield from _environment_problems("environment", settings.environment)
    yield from _secret_problems(settings)
    for name, volume in (("bases", settings.bases), ("scratch", settings.scratch)):
        if volume is not None:
            yield from _volume_problems(name, volume)
    if settings.bases and settings.scratch and settings.bases.mount == settings.scratch.mount:
        yield "scratch.mount", f"expected another path than that of bases, found {_both(settings)}"
    yield from _step_problems("defaults", settings.defaults, settings.defaults)
    for name, step in settings.steps.items():
        yield from _step_problems(f"steps.{name}", step, settings.step(name))
    yield from _cluster_problems(settings.cluster)
    yield from _docker_problems(settings.docker)


def _both(settings: Settings) -> str:
    return repr(settings.scratch.mount if settings.scratch else "")


def _environment_problems(at: str, environment: Mapping[str, str]) -> Iterator[Problem]:
    for name, value in environment.items():
        if not VARIABLE.fullmatch(name):
            yield f"{at}.{name}", "expected letters, digits and _ as a variable's name"
        elif SECRET.search(name):
            yield (
                f"{at}.{name}",
                "expected no secret here, because whoever sees the pipeline reads it; name a "
                "Kubernetes Secret in [secrets], or the variable in docker.forward",
            )
        elif LOGIN.search(value):
            yield (
                f"{at}.{name}",
                "expected no user:password@ in an address, because whoever sees the pipeline reads "
                "it, found one; leave it out and give both as variables of [secrets], or the whole "
                "address as one",
            )


def _secret_problems(settings: Settings) -> Iterator[Problem]:
    taken = set(settings.environment)
    for secret, variables in settings.secrets.items():
        for name, key in variables.items():
            at = f"secrets.{secret}.{name}"
            if not VARIABLE.fullmatch(name):
                yield at, "expected letters, digits and _ as a variable's name"
            if not key:
                yield at, "expected the key within the Secret, found nothing"
            if name in taken:
                yield at, "expected a variable that is set once, found it set before"
            taken.add(name)


def _volume_problems(at: str, volume: Volume) -> Iterator[Problem]:
    if not volume.claim:
        yield f"{at}.claim", "expected the name of a PersistentVolumeClaim, found nothing"
    if not re.fullmatch(r"/[^:]*[^:/]", volume.mount):
        yield f"{at}.mount", f"expected an absolute path, not /, found {volume.mount!r}"


def _step_problems(at: str, own: StepSettings, whole: StepSettings) -> Iterator[Problem]:
    """own: as the table says, for its values; whole: over the defaults, for pairs of them."""
    patterns = {"cpu_request": CPU, "cpu_limit": CPU} | dict.fromkeys(
        ("memory_request", "memory_limit", "shm"), SIZE
    )
    for name, pattern in patterns.items():
        text, example = getattr(own, name), '"4" or "500m"' if pattern is CPU else '"16Gi"'
        if text is not None and not (pattern.fullmatch(text) and float(_digits(text)) > 0):
            yield f"{at}.{name}", f"expected an amount like {example}, found {text!r}"
    for name, measure in (("cpu", cores), ("memory", size)):
        keys = (f"{name}_request", f"{name}_limit")
        least, most = (getattr(whole, key) for key in keys)
        said = any(getattr(own, key) for key in keys)  # else it is told of the defaults
        if said and least and most and _over(measure, least, most):
            yield f"{at}.{name}_request", f"expected at most the limit {most}, found {least}"
    if own.timeout is not None and own.timeout < 1:
        yield f"{at}.timeout", f"expected at least 1 second, found {own.timeout}"
    if own.gpu is not None and own.gpu.count < 0:
        yield f"{at}.gpu.count", f"expected 0 or more, found {own.gpu.count}"
    if own.retry is not None:
        yield from _retry_problems(f"{at}.retry", own.retry)
    yield from _environment_problems(f"{at}.environment", own.environment)
    for number, toleration in enumerate(own.tolerations):
        yield from _toleration_problems(f"{at}.tolerations[{number}]", toleration)


def _digits(text: str) -> str:
    found = re.match(r"[\d.]+", text)
    return found[0] if found else "0"


def _over(measure: Any, least: str, most: str) -> bool:
    try:
        return bool(measure(least) > measure(most))
    except (ValueError, AssertionError):  # one of them is told of already
        return False


def _retry_problems(at: str, retry: Retry) -> Iterator[Problem]:
    if not 0 <= retry.times <= 10:
        yield f"{at}.times", f"expected 0 to 10, found {retry.times}"
    if retry.wait < 0:
        yield f"{at}.wait", f"expected seconds, 0 or more, found {retry.wait}"
    if not (1 <= retry.factor < math.inf):
        yield f"{at}.factor", f"expected 1 or more, found {retry.factor}"
    if retry.longest < retry.wait:
        yield f"{at}.longest", f"expected at least wait ({retry.wait}), found {retry.longest}"


def _toleration_problems(at: str, toleration: Toleration) -> Iterator[Problem]:
    if toleration.operator == "Exists" and toleration.value:
        yield f"{at}.value", f"expected none with operator Exists, found {toleration.value!r}"
    if not toleration.key and toleration.operator != "Exists":
        yield f"{at}.key", "expected the taint's key, or operator Exists for every taint"
    if toleration.seconds is not None and toleration.effect != "NoExecute":
        yield f"{at}.seconds", "expected effect NoExecute with it: only that one evicts"


def _cluster_problems(cluster: Cluster) -> Iterator[Problem]:
    if cluster.host and not re.fullmatch(r"https?://[^\s/].*", cluster.host):
        yield "cluster.host", f"expected http(s)://..., found {cluster.host!r}"
    if LOGIN.search(cluster.host):
        yield (
            "cluster.host",
            "expected no user:password@, because logs and the settings' ConfigMap show it, found "
            "one; name a token by cluster.token_path or cluster.token_variable",
        )
    if cluster.ca and not cluster.host.startswith("https://"):
        yield "cluster.ca", f"expected an https:// host with it, found {cluster.host!r}"
    if cluster.user is not None and cluster.user < 1:
        yield "cluster.user", f"expected a user that is not root, found {cluster.user}"


def _docker_problems(docker: Docker) -> Iterator[Problem]:
    if docker.user and not USER.fullmatch(docker.user):
        yield "docker.user", f'expected "uid:gid" in numbers, found {docker.user!r}'
    for name in ("memory", "shm", "tmp"):
        text = getattr(docker, name)
        if (text or name != "memory") and not SIZE.fullmatch(text):
            yield f"docker.{name}", f'expected an amount like "2Gi", found {text!r}'
    if not 0 <= docker.cpus < math.inf:
        yield "docker.cpus", f"expected 0 (all) or more, found {docker.cpus}"
    if docker.processes < 1:
        yield "docker.processes", f"expected at least 1, found {docker.processes}"
    if docker.gpus < 0:
        yield "docker.gpus", f"expected 0 or more, found {docker.gpus}"
    if docker.socket and "://" not in docker.socket:
        yield "docker.socket", f"expected unix:///... or tcp://..., found {docker.socket!r}"
    for name in docker.forward:
        if not VARIABLE.fullmatch(name):
            yield "docker.forward", f"expected names of variables, found {name!r}"
