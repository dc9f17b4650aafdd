"""What a family of base models declares, what its loaded networks answer, which families there are.

A family is one module of `families/` with a line `FAMILY = Family(...)`; docs/bases.md says how to
add one. This module, and the top of every family's, load no torch: a wrong base is refused at once.
Another package declares its families, and every process knows them where that package is installed:

    [project.entry-points."l2dm.families"]
    any_name = "package.module"
"""

import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from l2dm import installed
from l2dm.bases.text import Text

if TYPE_CHECKING:
    from torch import Tensor, nn

Configs = Mapping[str, Mapping[str, Any]]
"""What each part's config.json says, by the part's name."""


@dataclass(frozen=True)
class Part:
    """One folder of a base: the classes it may be, and whether it holds weights.

    prefix: what other tools ask for before the names of its weights and transformers 5.6 dropped.
    """

    name: str
    classes: frozenset[str]
    weights: bool = True
    prefix: str = ""


class Reader(NamedTuple):
    """A text encoder with its tokenizer."""

    tokenizer: Any
    network: Any


class TextLayer(NamedTuple):
    """A linear layer that sees the rows of a text. first_row: where among its rows they begin."""

    linear: "nn.Linear"
    first_row: int = 0


class Networks(Protocol):
    """The networks of one loaded base. Pictures are (B, 3, H, W) in [-1, 1], on their device."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one picture's latents, (C, h, w)."""

    @property
    def scaling(self) -> float:
        """What the autoencoder's latents are multiplied by before the denoiser reads them."""

    def named(self) -> Mapping[str, Any]:
        """Every network by the name of its folder."""

    def readers(self) -> Sequence[Reader]:
        """The text encoders with their tokenizers; `Text.ids` are those of the first."""

    def text_layers(self) -> Mapping[str, TextLayer]:
        """The denoiser's linear layers that make keys and values of text, by module name."""

    def read(self, prompts: Sequence[str]) -> Text:
        """Encode prompts as the base's own pipeline does, padded to its context length."""

    def read_nothing(self) -> Text:
        """The text that guidance leads away from, of one row: no prompt at all."""

    def predict(self, noisy: "Tensor", timesteps: "Tensor", text: Text) -> "Tensor":
        """What was trained to be `predictions`, (B, C, h, w), at timesteps (B,) or one for all."""

    def encode(self, pictures: "Tensor") -> "Tensor":
        """Scaled latents (B, C, h, w): the posterior's mean."""

    def decode(self, latents: "Tensor") -> "Tensor":
        """Pictures (B, 3, H, W) of scaled latents."""


@dataclass(frozen=True)
class Family:
    """What is known of a family before anything is loaded, and how it is loaded.

    name: for messages. pipeline: the class of diffusers that draws with such a folder. parts: the
    folders of a base, in the order in which its fingerprint reads them. without: parts that only
    other families have. denoiser: the part that adapters are put on. shifted: the parts whose
    singular values a spectral adapter moves. predictions: what the scheduler's config may call the
    denoiser's output. resolution: a picture's side in pixels, from the configs. tokenizers: one a
    text encoder. load: the networks in float32 on the CPU from a folder, its tokenizers and its
    variant ("fp16" or None); what it raises is told as a base that cannot be read. kohya: what the
    LoRA files of ComfyUI and A1111 call the denoiser; empty where they know no such base. misfits:
    sentences about parts that do not fit together, from the configs of all parts. try_out: asks the
    loaded networks for something small, and raises what they raise, or ValueError for NaN.
    lora_header: what a LoRA file's header says of its base, from the configs and what the denoiser
    predicts.
    """

    name: str
    pipeline: str
    parts: tuple[Part, ...]
    without: frozenset[str]
    denoiser: str
    shifted: tuple[str, ...]
    predictions: tuple[str, ...]
    resolution: Callable[[Configs], int]
    tokenizers: Callable[[Path], tuple[Any, ...]]
    load: Callable[[Path, tuple[Any, ...], str | None], Networks]
    kohya: str = ""
    misfits: Callable[[Configs], Sequence[str]] = lambda configs: ()
    try_out: Callable[[Networks], None] = lambda networks: None
    lora_header: Callable[[Configs, str], Mapping[str, str]] = lambda configs, prediction: {}

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the parts that hold weights."""
        return tuple(part.name for part in self.parts if part.weights)


GROUP = "l2dm.families"  # entry points: the module of a family of another package
log = logging.getLogger(__name__)

_registered: list[Family] = []


def register(family: Family) -> None:
    """Let this process know a family that is no module of `families/`. Raises ValueError."""
    if family.name in {one.name for one in families()}:
        raise ValueError(f"expected a new family, found {family.name!r} a second time; rename it")
    _registered.append(family)


def unregister(family: Family) -> None:
    """Forget a family that was registered. Raises ValueError when it was not."""
    _registered.remove(family)


def families() -> tuple[Family, ...]:
    """Those of `families/` by module name, those of installed packages, those registered."""
    return (*_found(), *_registered)


@cache
def _found() -> tuple[Family, ...]:
    package = f"{__name__.rpartition('.')[0]}.families"
    path = importlib.import_module(package).__path__
    names = sorted(one.name for one in pkgutil.iter_modules(path))
    own = [importlib.import_module(f"{package}.{name}").FAMILY for name in names]
    return (*own, *_declared({family.name for family in own}))


def _declared(known: set[str]) -> Iterator[Family]:
    for point in installed.entry_points(GROUP):
        try:
            module = importlib.import_module(installed.require_module(point))
            if not isinstance(family := getattr(module, "FAMILY", None), Family):
                raise installed.Unfit(f"expected a module with FAMILY, found {family!r}")
            if family.name in known:
                raise installed.Unfit(f"found family {family.name!r} a second time; rename it")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told below
            # whatever a wrong package does must not end what has nothing to do with it
            log.warning("%s", installed.left_out(point, error))
        else:
            known.add(family.name)
            yield family
