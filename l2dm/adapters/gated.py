"""Gated adapters: each concept's weights act only on its own placeholder's rows.

K = C W_K + sum_i G_i C A_i^K B_i^K, likewise V (docs/methods.md). A prompt without a placeholder,
and every other concept, is therefore the base and the other concept's own adapter, bit for bit:
later tasks cannot change what earlier ones draw.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2dm.adapters.contract import AdapterSettings, ExportWriter, Host, compare, detached
from l2dm.adapters.prompt_rows import Gate, gate_of
from l2dm.doors import Concept
from l2dm.errors import DoesNotFit, NothingAttached

KIND = "gated"
SHARED = False  # every name begins with its concept's


@dataclass
class _Switch:
    """What all gated layers of one network look at: which rows belong to which concept now."""

    rows: dict[str, Tensor] = field(default_factory=dict)  # (B, L, 1) bool
    strengths: dict[str, float] = field(default_factory=dict)  # of concepts that have not all of it


class GatedLinear(nn.Module):
    """A frozen linear layer plus one low-rank path per concept. down: (d_in, r), up: (r, d_out).

    first_row: where the text's L rows begin among the rows that the layer sees.
    """

    def __init__(self, inner: nn.Linear, switch: _Switch, first_row: int = 0) -> None:
        super().__init__()
        self.inner = inner
        self.first_row = first_row
        # Plain dictionaries: a ParameterDict mistakes a concept called "keys" for its own method.
        self.down: dict[str, nn.Parameter] = {}
        self.up: dict[str, nn.Parameter] = {}
        self._switch = switch

    def forward(self, states: Tensor) -> Tensor:
        """states: (B, R, d_in) with R >= first_row + L. Returns (B, R, d_out).

        The sum is chosen by `where`, never multiplied by a gate of zero: adding zero can flip the
        sign of a zero, and shapes stay the same whichever rows are gated, so rows cannot disturb
        each other through the matrix kernel's choice of blocking.
        """
        output: Tensor = self.inner(states)
        for name, rows in self._switch.rows.items():
            change = (states @ self.down[name]) @ self.up[name]
            if name in self._switch.strengths:
                change = change * self._switch.strengths[name]
            output = torch.where(self._placed(rows, states.shape[1]), output + change, output)
        return output

    def _placed(self, rows: Tensor, seen: int) -> Tensor:
        """The text's rows, (B, L, 1), among the `seen` rows of this layer, (B, R, 1)."""
        behind = seen - self.first_row - rows.shape[1]
        return (
            functional.pad(rows, (0, 0, self.first_row, behind)) if seen > rows.shape[1] else rows
        )


class GatedAdapter:
    """One low-rank adapter per concept on the given layers; `learning` is the one that trains."""

    kind = KIND
    changes_text = False

    def __init__(
        self,
        layers: Mapping[str, GatedLinear],
        switch: _Switch,
        gate: Gate,
        settings: AdapterSettings,
    ) -> None:
        """settings: the rank of every concept's paths and the gate's name."""
        self.settings = settings
        self._layers = layers
        self._switch = switch
        self._gate = gate
        self._concepts: dict[str, str] = {}  # name -> class noun
        self._enabled = True
        self.learning: str | None = None

    def add(self, concept: str, *, generator: torch.Generator, noun: str) -> None:
        """Give a concept its own paths. down within 1/sqrt(d_in), up = 0: at first no change."""
        if concept in self._concepts:
            raise DoesNotFit(f"concept {concept!r} has a gated adapter already")
        rank = int(self.settings["rank"])
        for layer in self._layers.values():
            width, height = layer.inner.in_features, layer.inner.out_features
            device = layer.inner.weight.device
            down = (2 * torch.rand(width, rank, generator=generator) - 1) * width**-0.5
            layer.down[concept] = nn.Parameter(down.to(device), requires_grad=False)
            layer.up[concept] = nn.Parameter(
                torch.zeros(rank, height, device=device), requires_grad=False
            )
        self._concepts[concept] = noun

    def learn(self, concept: str) -> None:
        """Choose the concept whose paths train; all others stay frozen."""
        self.learning = concept
        for parameter in self.trainable().values():
            parameter.requires_grad_(True)

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """The paths of the concept that is being learned."""
        return self._named(self.learning) if self.learning else {}

    def state(self) -> dict[str, Tensor]:
        """`<concept>/<layer>.down`, (d_in, r), and `.up`, (r, d_out), of every concept, float16.

        Half precision halves a concept's bytes; it is rounded once, when it was learned, and
        copied from then on.
        """
        return {name: tensor.half() for name, tensor in detached(self._all()).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare, then copy. Every concept must have been added first. state: as of `state`."""
        own = self._all()
        compare({name: tensor.detach().half() for name, tensor in own.items()}, state)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """The base, bit for bit: no path is evaluated."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    @contextlib.contextmanager
    def reading(self, ids: Tensor) -> Iterator[None]:
        """Open the gates that these prompts name. ids: (B, L).

        Concepts that none names are not evaluated.
        """
        if self._enabled:
            for name, noun in self._concepts.items():
                rows = self._gate(ids, name, noun)
                if rows.any() and self._switch.strengths.get(name, 1):
                    self._switch.rows[name] = rows.unsqueeze(-1)
        try:
            yield
        finally:
            self._switch.rows.clear()

    @contextlib.contextmanager
    def scaled(self, strengths: Mapping[str, float]) -> Iterator[None]:
        """Each concept's own; at 0 its paths are not evaluated."""
        before = self._switch.strengths
        self._switch.strengths = {name: value for name, value in strengths.items() if value != 1}
        try:
            yield
        finally:
            self._switch.strengths = before

    def export(self, to: ExportWriter) -> None:
        """Its own pipeline; where the gate is a whole prompt, each concept as a LoRA as well."""
        weights, rank, gate = self.state(), int(self.settings["rank"]), self.settings["gate"]
        to.gated(weights, {"gate": gate, "concepts": json.dumps(list(self._concepts.items()))})
        if gate == "prompt":
            for concept in self._concepts:
                to.concept_lora(concept, as_lora(weights, concept), rank)

    def _all(self) -> dict[str, nn.Parameter]:
        return {key: value for name in self._concepts for key, value in self._named(name).items()}

    def _named(self, concept: str) -> dict[str, nn.Parameter]:
        named = {}
        for layer, gated in self._layers.items():
            named[f"{concept}/{layer}.down"] = gated.down[concept]
            named[f"{concept}/{layer}.up"] = gated.up[concept]
        return named


def put_on(
    host: Host,
    settings: AdapterSettings,
    generator: torch.Generator,
    concepts: Sequence[Concept] = (),
) -> GatedAdapter:
    """On the layers that make keys and values of text, with paths for these concepts."""
    kept = {"rank": settings["rank"], "gate": settings["gate"]}
    gate = gate_of(str(settings["gate"]), host)
    adapter = attach(host.denoiser, host.text_layers(), gate, kept)
    for concept in concepts:
        adapter.add(concept.name, generator=generator, noun=concept.class_noun)
    return adapter


def as_lora(weights: Mapping[str, Tensor], concept: str) -> dict[str, Tensor]:
    """One concept's paths as LoRA weights in float32: A = down^T, (r, d_in), B = up^T, (d_out, r).

    weights: as `GatedAdapter.state` gives them.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        owner, _, path = name.partition("/")
        layer, _, which = path.rpartition(".")
        if owner == concept:
            key = f"{layer}.{'lora_A' if which == 'down' else 'lora_B'}.weight"
            found[key] = tensor.float().t().contiguous()
    return found


def attach(
    network: nn.Module,
    targets: Mapping[str, tuple[nn.Linear, int]],
    gate: Gate,
    settings: AdapterSettings,
) -> GatedAdapter:
    """Wrap linear layers of `network`. Raises NothingAttached when there is none.

    targets: by module name, the layer and where the text's rows begin among those that it sees.
    """
    if not targets:
        raise NothingAttached(
            "expected key and value projections of cross-attention to gate, found none; "
            "the base has no cross-attention"
        )
    switch = _Switch()
    layers: dict[str, GatedLinear] = {}
    for name, (linear, first_row) in targets.items():
        owner, _, attribute = name.rpartition(".")
        layers[name] = GatedLinear(linear, switch, first_row)
        setattr(network.get_submodule(owner), attribute, layers[name])
    return GatedAdapter(layers, switch, gate, settings)
