"""Prompts: templates, placeholders, and which token positions mean which concept."""

import re
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from l2dm.errors import BadPrompt

TEMPLATES = ("a photo of a {}", "a picture of a {}", "a {}")
EVALUATION_TEMPLATES = ("a photo of a {}", "a picture of a {}")

_PLACEHOLDER = re.compile(r"<([a-z][a-z0-9_-]*)>")


def placeholders_in(prompt: str) -> tuple[str, ...]:
    """Names of the concepts that a prompt mentions, in order, each once."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(prompt)))


def require_known(prompt: str, known: Collection[str]) -> None:
    """Raise BadPrompt when a prompt names a concept that the line has not learned."""
    unknown = [name for name in placeholders_in(prompt) if name not in known]
    if unknown:
        learned = ", ".join(f"<{name}>" for name in sorted(known)) or "none yet"
        named = ", ".join(f"<{name}>" for name in unknown)
        raise BadPrompt(
            f"prompt {prompt!r} names {named}, which this line has not learned; it knows: {learned}"
        )


def without_placeholders(prompt: str) -> str:
    """The prompt as the base model can read it: placeholders removed, class nouns kept."""
    return " ".join(_PLACEHOLDER.sub(" ", prompt).split())


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
