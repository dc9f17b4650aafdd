"""Prompts as tensors: what the denoiser reads. Loads no torch by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Text:
    """Encoded prompts.

    ids: (B, L) token ids. states: (B, L, D), the text encoder's hidden states. Where the family has
    them, pooled: (B, P), one vector a prompt; mask: (B, L), 1 where a row is read.
    """

    ids: "Tensor"
    states: "Tensor"
    pooled: "Tensor | None" = None
    mask: "Tensor | None" = None

    def __getitem__(self, rows: "Sequence[int] | Tensor") -> "Text":
        """These prompts, in this order."""
        import torch

        index = torch.as_tensor(rows, device=self.ids.device)

        def chosen(part: "Tensor") -> "Tensor":
            # The gradient of `part[index]` adds up a prompt that comes twice in no fixed order.
            return part.index_select(0, index)

        return Text(
            chosen(self.ids),
            chosen(self.states),
            None if self.pooled is None else chosen(self.pooled),
            None if self.mask is None else chosen(self.mask),
        )


def concatenate(texts: Sequence[Text]) -> Text:
    """Several texts of one base as one, in order."""
    import torch

    def joined(name: str) -> "Tensor | None":
        parts = [getattr(text, name) for text in texts]
        return None if parts[0] is None else torch.cat(parts)

    return Text(
        torch.cat([text.ids for text in texts]),
        torch.cat([text.states for text in texts]),
        joined("pooled"),
        joined("mask"),
    )
