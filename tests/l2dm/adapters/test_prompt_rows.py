"""Which rows of a prompt a concept owns."""

import pytest
import torch

from l2dm.adapters.prompt_rows import gate_of, prompt_gate, span_gate, token_gate
from l2dm.errors import DoesNotFit

A, B, NOUN, END = 90, 91, 7, 1


def rows(gate: torch.Tensor) -> list[int]:
    return gate[0].int().tolist()


def test_token_gate_opens_only_the_placeholder() -> None:
    assert rows(token_gate(torch.tensor([[5, A, NOUN, B]]), A)) == [0, 1, 0, 0]


def test_span_gate_adds_the_noun_that_follows() -> None:
    assert rows(span_gate(torch.tensor([[5, A, NOUN, 8, NOUN]]), A, [NOUN, 8])) == [
        0,
        1,
        1,
        1,
        0,
    ]
    # another word follows: the placeholder alone
    assert rows(span_gate(torch.tensor([[5, A, 6, NOUN]]), A, [NOUN])) == [0, 1, 0, 0]


def test_prompt_gate_opens_everything_for_a_single_concept() -> None:
    ids = torch.tensor([[5, A, NOUN, END]])
    assert rows(prompt_gate(ids, A, {A, B})) == [1, 1, 1, 1]
    assert rows(prompt_gate(ids, B, {A, B})) == [0, 0, 0, 0]


def test_prompt_gate_shares_rows_by_the_nearest_placeholder_before() -> None:
    ids = torch.tensor([[5, A, NOUN, B, END]])
    assert rows(prompt_gate(ids, A, {A, B})) == [0, 1, 1, 0, 0]
    assert rows(prompt_gate(ids, B, {A, B})) == [0, 0, 0, 1, 1]


class Host:
    """The placeholders of a base, and nothing else of it."""

    def __init__(self) -> None:
        self.placeholders, self.ids = self, {"rex": A}

    def token_ids(self, words: str) -> list[int]:
        return [NOUN]


def test_a_gate_by_its_name_sees_placeholders_that_are_learned_later() -> None:
    ids, host = torch.tensor([[5, A, NOUN, B]]), Host()
    gate = gate_of("prompt", host)
    assert rows(gate(ids, "rex", "dog")) == [1, 1, 1, 1]
    host.ids["tom"] = B
    assert rows(gate(ids, "rex", "dog")) == [0, 1, 1, 0]
    assert rows(gate_of("span", host)(ids, "rex", "dog")) == [0, 1, 1, 0]
    with pytest.raises(DoesNotFit, match=r"expected a gate of \('token', .*found 'door'"):
        gate_of("door", host)
