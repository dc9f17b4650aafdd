"""Prompts as tensors: what the UNet's cross-attention reads, and the placeholder rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l2dm.errors import DoesNotFit


@dataclass(frozen=True)
class Text:
    """Encoded prompts.

    ids: (B, L) token ids. states: (B, L, D), the text encoder's last hidden states.
    """

    ids: Tensor
    states: Tensor

    def __getitem__(self, rows: Sequence[int] | Tensor) -> "Text":
        index = torch.as_tensor(rows, device=self.ids.device)
        return Text(self.ids[index], self.states[index])


def concatenate(texts: Sequence[Text]) -> Text:
    """Several texts as one, in order."""
    return Text(torch.cat([t.ids for t in texts]), torch.cat([t.states for t in texts]))


class PlaceholderEmbedding(nn.Module):
    """A frozen embedding table plus one row per placeholder, outside the table.

    The table is never resized or written, so ordinary prompts stay bit-identical, and the gradient
    of one concept's row cannot touch another's.
    """

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        # Plain dictionaries: a ParameterDict mistakes a concept called "keys" for its own method.
        self.rows: dict[str, nn.Parameter] = {}
        self.ids: dict[str, int] = {}

    @property
    def weight(self) -> Tensor:
        """The frozen table, for code that asks an embedding for its weight."""
        return self.table.weight

    @property
    def embedding_dim(self) -> int:
        """Width of a row."""
        return self.table.embedding_dim

    def add(self, name: str, token_id: int, row: Tensor) -> nn.Parameter:
        """Give concept `name` the token `token_id` and the embedding `row`, (D,)."""
        if name in self.rows:
            raise DoesNotFit(f"placeholder <{name}> has a row already; load each concept once")
        if row.shape != (self.embedding_dim,):
            raise DoesNotFit(
                f"row of <{name}> has shape {tuple(row.shape)}, this text encoder reads "
                f"({self.embedding_dim},); the adapter belongs to another base"
            )
        row = row.detach().clone().to(self.weight.device, torch.float32)
        self.rows[name] = nn.Parameter(row, requires_grad=False)
        self.ids[name] = token_id
        return self.rows[name]

    def state(self) -> Mapping[str, Tensor]:
        """Every concept's row, (D,)."""
        return {name: row.detach().clone() for name, row in self.rows.items()}

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, L). Returns (B, L, D)."""
        known = ids.clone()
        for token in self.ids.values():
            known[ids == token] = 0
        embedded: Tensor = self.table(known)
        for name, token in self.ids.items():
            here = (ids == token).unsqueeze(-1)
            if here.any():
                embedded = torch.where(here, self.rows[name].to(embedded.dtype), embedded)
        return embedded
