"""The words `<name>` that a line has learned: a token for each tokenizer and one embedding row."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from l2dm.adapters.contract import holding
from l2dm.bases.family import Reader
from l2dm.errors import BadBase, DoesNotFit


class PlaceholderEmbedding(nn.Module):
    """A frozen embedding table plus one row per placeholder, outside the table.

    The table is never resized or written, so ordinary prompts stay bit-identical, and the gradient
    of one concept's row cannot touch another's. first: where this table's part of a row begins.
    """

    def __init__(self, table: nn.Embedding, first: int = 0) -> None:
        super().__init__()
        self.table = table
        self.first = first
        # Plain dictionaries: a ParameterDict mistakes a concept called "keys" for its own method.
        self.rows: dict[str, nn.Parameter] = {}
        self.ids: dict[str, int] = {}

    @property
    def weight(self) -> Tensor:
        """The frozen table, (V, D), for code that asks an embedding for its weight."""
        return self.table.weight

    @property
    def embedding_dim(self) -> int:
        """Width of this table's part of a row."""
        return self.table.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, L). Returns (B, L, D)."""
        known = ids.clone()
        for token in self.ids.values():
            known[ids == token] = 0
        embedded: Tensor = self.table(known)
        for name, token in self.ids.items():
            here = (ids == token).unsqueeze(-1)
            if here.any():
                row = self.rows[name].narrow(0, self.first, self.embedding_dim)
                embedded = torch.where(here, row.to(embedded.dtype), embedded)
        return embedded


class Placeholders:
    """Every placeholder of a model, read by all of its text encoders.

    A row is as wide as the tables of all text encoders together, in their order: (D,).
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        """Put a PlaceholderEmbedding in the place of each text encoder's table."""
        self._readers = tuple(readers)
        self._embeddings: list[PlaceholderEmbedding] = []
        self._rows: dict[str, nn.Parameter] = {}
        for reader in self._readers:
            embedding = PlaceholderEmbedding(reader.network.get_input_embeddings(), self.width)
            reader.network.set_input_embeddings(embedding)
            self._embeddings.append(embedding)

    @property
    def width(self) -> int:
        """Width of a row, D."""
        return sum(embedding.embedding_dim for embedding in self._embeddings)

    @property
    def ids(self) -> Mapping[str, int]:
        """Each concept's token id in `Text.ids`."""
        return self._embeddings[0].ids

    def add(self, name: str, row: Tensor) -> nn.Parameter:
        """Teach the tokenizers `<name>` and give it the embedding row, (D,). Returns the row."""
        word = f"<{name}>"
        if any(word in reader.tokenizer.get_vocab() for reader in self._readers):
            raise DoesNotFit(
                f"{word} is a word of this base's tokenizer already; choose another concept name"
            )
        if row.shape != (self.width,):
            raise DoesNotFit(
                f"row of {word} has shape {tuple(row.shape)}, this text encoder reads "
                f"({self.width},); the adapter belongs to another base"
            )
        row = row.detach().clone().to(self._embeddings[0].weight.device, torch.float32)
        self._rows[name] = nn.Parameter(row, requires_grad=False)
        for reader, embedding in zip(self._readers, self._embeddings, strict=True):
            reader.tokenizer.add_tokens(word)
            embedding.ids[name] = reader.tokenizer.convert_tokens_to_ids(word)
            embedding.rows[name] = self._rows[name]
        return self._rows[name]

    def noun_row(self, noun: str) -> Tensor:
        """Where a placeholder starts: the mean embedding row of the class noun's tokens, (D,)."""
        parts = [
            embedding.table.weight[_token_ids(reader.tokenizer, noun)].mean(0)
            for reader, embedding in zip(self._readers, self._embeddings, strict=True)
        ]
        return torch.cat(parts).detach().float()

    def token_ids(self, words: str) -> list[int]:
        """Token ids of some words as `Text.ids` holds them, without begin and end."""
        return _token_ids(self._readers[0].tokenizer, words)

    def cut_off(self, prompt: str) -> str:
        """The end of a prompt, in whole words, that no text encoder reads whole; "" if all do."""
        ends = [_behind_the_context(reader.tokenizer, prompt) for reader in self._readers]
        return max(ends, key=len)

    @contextmanager
    def faded(self, strengths: Mapping[str, float], nouns: Mapping[str, str]) -> Iterator[None]:
        """Inside, a word's row is only so far from its noun's: 0 is the noun's row, 1 the learned.

        strengths: by concept. nouns: the class noun of each concept.
        """
        own = {name: self._rows[name] for name, value in strengths.items() if value != 1}
        faded = {}
        for name, row in own.items():
            noun = self.noun_row(nouns[name]).to(row.device)
            faded[name] = torch.lerp(noun, row.data, strengths[name])
        with holding(own, faded):
            yield

    def state(self) -> Mapping[str, Tensor]:
        """Every concept's row, (D,)."""
        return {name: row.detach().clone() for name, row in self._rows.items()}

    def remove(self) -> None:
        """Give the text encoders their own tables back."""
        for reader, embedding in zip(self._readers, self._embeddings, strict=True):
            reader.network.set_input_embeddings(embedding.table)


def _behind_the_context(tokenizer: Any, prompt: str) -> str:
    """What a tokenizer cuts off, from the beginning of the word that it cuts."""
    first = tokenizer.model_max_length - len(tokenizer("").input_ids)  # without begin and end
    try:
        whole = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    except NotImplementedError:  # a tokenizer in plain Python knows no places
        ids = _token_ids(tokenizer, prompt)
        return str(tokenizer.decode(ids[max(first, 0) :])).strip()
    if first >= len(whole.input_ids):
        return ""
    start = whole.offset_mapping[max(first, 0)][0]
    while start and not (prompt[start - 1].isspace() or prompt[start - 1] == ">"):
        start -= 1
    return prompt[start:].strip()


def require_words(tokenizer: Any, table: nn.Embedding) -> None:
    """Raise BadBase when a tokenizer knows words that the text encoder's table has no row for."""
    last = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= last < table.num_embeddings:
        raise BadBase(
            f"its tokenizer has words up to number {last:,}, its text encoder rows for "
            f"{table.num_embeddings:,}; take both from one model"
        )


def _token_ids(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer(words, add_special_tokens=False).input_ids
    return ids
