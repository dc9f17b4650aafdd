"""Which rows of a prompt a concept owns; docs/methods.md names the three gates."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from l2dm.adapters.contract import Host
from l2dm.errors import DoesNotFit

GateKind = Literal["token", "span", "prompt"]
Gate = Callable[[Tensor, str, str], Tensor]
"""From token ids (B, L), a concept's name and class noun to the rows it owns, (B, L) bool."""


def gate_of(kind: str, host: Host) -> Gate:
    """A gate for the placeholders of a base, those included that it learns later."""
    ids_of = host.placeholders.ids
    gates: Mapping[str, Gate] = {
        "token": lambda ids, name, noun: token_gate(ids, ids_of[name]),
        "span": lambda ids, name, noun: span_gate(ids, ids_of[name], host.token_ids(noun)),
        "prompt": lambda ids, name, noun: prompt_gate(ids, ids_of[name], set(ids_of.values())),
    }
    if kind not in gates:
        raise DoesNotFit(f"expected a gate of {get_args(GateKind)}, found {kind!r}")
    return gates[kind]


def token_gate(ids: Tensor, own: int) -> Tensor:
    """Rows of the placeholder itself.

    ids: (B, L) token ids. own: the placeholder's id. Returns (B, L) bool. docs/methods.md.
    """
    return ids == own


def span_gate(ids: Tensor, own: int, noun: Sequence[int]) -> Tensor:
    """Rows of the placeholder and of the class noun where it follows directly.

    ids: (B, L). noun: token ids of the class noun. Returns (B, L) bool. docs/methods.md.
    """
    gate = token_gate(ids, own)
    follows = gate
    for offset, token in enumerate(noun, start=1):
        follows = follows & (_shifted_left(ids, offset) == token)
    span = gate.clone()
    for offset in range(1, len(noun) + 1):
        span |= _shifted_right(follows, offset)
    return span


def prompt_gate(ids: Tensor, own: int, all_placeholders: Collection[int]) -> Tensor:
    """Rows whose nearest preceding placeholder is ours; the whole prompt if ours is the only one.

    ids: (B, L). Returns (B, L) bool. With several concepts in a prompt, rows before the first
    placeholder belong to none. docs/methods.md.
    """
    gate = torch.zeros_like(ids, dtype=torch.bool)
    for row, tokens in enumerate(ids.tolist()):
        present = {token for token in tokens if token in all_placeholders}
        if present == {own}:
            gate[row] = True
        elif own in present:
            gate[row] = torch.tensor(_owned(tokens, own, all_placeholders))
    return gate


def _owned(tokens: Sequence[int], own: int, placeholders: Collection[int]) -> list[bool]:
    owner, owned = -1, []
    for token in tokens:
        owner = token if token in placeholders else owner
        owned.append(owner == own)
    return owned


def _shifted_left(ids: Tensor, offset: int) -> Tensor:
    shifted = torch.full_like(ids, -1)
    shifted[:, : ids.shape[1] - offset] = ids[:, offset:]
    return shifted


def _shifted_right(mask: Tensor, offset: int) -> Tensor:
    shifted = torch.zeros_like(mask)
    shifted[:, offset:] = mask[:, : mask.shape[1] - offset]
    return shifted
