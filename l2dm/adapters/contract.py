"""What every adapter answers; one contract suite in the tests asks all of them."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from l2dm.errors import BadPrompt, DoesNotFit

AdapterSettings = Mapping[str, str | int | float]
"""What a kind needs besides weights to be put on a base again: rank, gate, ..."""


class Named(Protocol):
    """The placeholders of a base."""

    @property
    def ids(self) -> Mapping[str, int]:
        """Each concept's token id, by name; grows as the base learns placeholders."""


class Host(Protocol):
    """What a base offers to those that put themselves on it; `bases.model.Model` is one."""

    @property
    def denoiser(self) -> nn.Module:
        """The network that predicts noise."""

    @property
    def placeholders(self) -> Named:
        """The words that mean concepts."""

    def text_layers(self) -> Mapping[str, tuple[nn.Linear, int]]:
        """The denoiser's layers that make keys and values of text, by module name.

        With each, where the text's rows begin among the rows that it sees.
        """

    def shifted(self) -> Mapping[str, nn.Module]:
        """The networks whose singular values may move, by name."""

    def token_ids(self, words: str) -> list[int]:
        """Token ids of some words, without begin and end."""


class ExportWriter(Protocol):
    """The three forms in which other tools read an adapter; `l2dm.export.forms` writes them."""

    def lora(self, weights: Mapping[str, Tensor], rank: int) -> None:
        """The whole adapter is one LoRA.

        weights: `<layer>.lora_A.weight`, (r, d_in), and `<layer>.lora_B.weight`, (d_out, r).
        """

    def gated(self, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """The adapter needs a pipeline of its own, which reads these.

        weights: `<concept>/<layer>.down`, (d_in, r), and `.up`, (r, d_out).
        """

    def concept_lora(self, concept: str, weights: Mapping[str, Tensor], rank: int) -> None:
        """One concept alone as a LoRA, beside what draws all of them. weights: as for `lora`."""

    def merged(self) -> None:
        """The adapter has folded itself into the base's weights, which are written whole."""


class AttachedAdapter(Protocol):
    """Weights beside a frozen network: train, save, load, switch off, export."""

    kind: str
    changes_text: bool  # whether the text encoder's output depends on the adapter's weights

    @property
    def settings(self) -> AdapterSettings:
        """What a door records beside the weights."""

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """What the optimiser may change, by name. The only place that knows the set."""

    def state(self) -> dict[str, Tensor]:
        """Everything worth saving, detached copies on the CPU; each kind tells names and shapes."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Compare names, shapes, dtypes, finiteness with `state`, then copy. Raises DoesNotFit."""

    def disabled(self) -> AbstractContextManager[None]:
        """Inside, the network is the base, bit for bit."""

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """Inside, the network serves prompts with these token ids, (B, L)."""

    def scaled(self, strengths: Mapping[str, float]) -> AbstractContextManager[None]:
        """Inside, what was learned acts with these strengths, by concept; others with 1.

        1 is as learned, bit for bit. 0 is the base, bit for bit. strengths: of the concepts that a
        prompt names. Raises BadPrompt where one set of weights is to have two strengths.
        """

    def export(self, to: ExportWriter) -> None:
        """Write itself in the form in which other tools can read it. Uses it up."""


class NoAdapter:
    """The pretrained base itself."""

    kind = "none"
    changes_text = False

    @property
    def settings(self) -> AdapterSettings:
        """None."""
        return {}

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Refuse any weight."""
        compare({}, state)

    def disabled(self) -> AbstractContextManager[None]:
        """No change."""
        return contextlib.nullcontext()

    def reading(self, ids: Tensor) -> AbstractContextManager[None]:
        """No change. ids: (B, L)."""
        return contextlib.nullcontext()

    def scaled(self, strengths: Mapping[str, float]) -> AbstractContextManager[None]:
        """No change."""
        return contextlib.nullcontext()

    def export(self, to: ExportWriter) -> None:
        """There is nothing to write."""
        raise DoesNotFit("expected an adapter to export, found none: nothing was learned yet")


def one_strength(strengths: Mapping[str, float]) -> float:
    """The strength of weights that all concepts share, 1 if none is given. Raises BadPrompt."""
    found = set(strengths.values()) or {1.0}
    if len(found) > 1:
        said = ", ".join(f"<{name}> {value:g}" for name, value in strengths.items())
        raise BadPrompt(
            f"expected one strength for all concepts of a prompt, found {said}: this line learned "
            "one set of weights for all of them; give them the same, or draw them one by one"
        )
    return found.pop()


def compare(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    what: str = "adapter weights",
    advice: str = "load them on the base that they were trained on",
) -> None:
    """Raise DoesNotFit unless `found` has the names, shapes, dtypes of `expected`, all finite.

    what: how a message calls `found`. advice: what to do about other names, shapes or dtypes.
    """
    missing, foreign = (
        sorted(expected.keys() - found.keys()),
        sorted(found.keys() - expected.keys()),
    )
    if missing or foreign:
        raise DoesNotFit(
            f"{what}: expected tensors by {len(expected)} names, found {len(missing)} missing "
            f"{missing[:3]} and {len(foreign)} foreign {foreign[:3]}; {advice}"
        )
    for name, tensor in expected.items():
        one = found[name]
        if (one.shape, one.dtype) != (tensor.shape, tensor.dtype):
            raise DoesNotFit(
                f"{what}: expected {name} as {tuple(tensor.shape)} {tensor.dtype}, found "
                f"{tuple(one.shape)} {one.dtype}; {advice}"
            )
    require_finite(found, what)


def require_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise DoesNotFit for a number that is NaN or infinite. what: how the message calls them."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DoesNotFit(
                f"{what}: expected finite numbers, found that {name} holds NaN or infinity; train "
                "the task again"
            )


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Compare, then copy `given` into `own` in place. Equal names have equal shapes."""
    compare(own, given)
    for name, tensor in own.items():
        tensor.copy_(given[name])


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, safe to save; names and shapes stay."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


@contextlib.contextmanager
def holding(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, these parameters hold other values: the teacher is the same network as the student.

    values: by name, each in its parameter's shape. Raises DoesNotFit for others.

    Use it without gradients and before the student's forward pass: autograd keeps references to
    the parameters, not copies.
    """
    compare(parameters, values)
    kept = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name].to(parameter.device)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]
