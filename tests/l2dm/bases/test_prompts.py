import pytest
import torch

from l2dm.bases.prompts import (
    placeholders_in,
    prompt_gate,
    require_known,
    span_gate,
    token_gate,
    without_placeholders,
)
from l2dm.errors import BadPrompt

A, B, NOUN, END = 90, 91, 7, 1


def gate_of(gate: torch.Tensor) -> list[int]:
    return gate[0].int().tolist()


def test_placeholders_in_order_each_once() -> None:
    assert placeholders_in("<tom> and <rex-2> and <tom>, <not a slug>") == ("tom", "rex-2")


def test_unknown_concept_is_refused_with_what_the_line_knows() -> None:
    require_known("a photo of a <rex> dog", {"rex"})
    with pytest.raises(
        BadPrompt, match=r"names <tom>, which this line has not learned; it knows: <rex>"
    ):
        require_known("a <tom> cat beside <rex>", {"rex"})
    with pytest.raises(BadPrompt, match="it knows: none yet"):
        require_known("<tom>", ())


def test_without_placeholders_keeps_the_noun() -> None:
    assert without_placeholders("a photo of a <rex> dog on grass") == "a photo of a dog on grass"


def test_token_gate_opens_only_the_placeholder() -> None:
    assert gate_of(token_gate(torch.tensor([[5, A, NOUN, B]]), A)) == [0, 1, 0, 0]


def test_span_gate_adds_the_noun_that_follows() -> None:
    assert gate_of(span_gate(torch.tensor([[5, A, NOUN, 8, NOUN]]), A, [NOUN, 8])) == [
        0,
        1,
        1,
        1,
        0,
    ]
    # another word follows: the placeholder alone
    assert gate_of(span_gate(torch.tensor([[5, A, 6, NOUN]]), A, [NOUN])) == [0, 1, 0, 0]


def test_prompt_gate_opens_everything_for_a_single_concept() -> None:
    ids = torch.tensor([[5, A, NOUN, END]])
    assert gate_of(prompt_gate(ids, A, {A, B})) == [1, 1, 1, 1]
    assert gate_of(prompt_gate(ids, B, {A, B})) == [0, 0, 0, 0]


def test_prompt_gate_shares_rows_by_the_nearest_placeholder_before() -> None:
    ids = torch.tensor([[5, A, NOUN, B, END]])
    assert gate_of(prompt_gate(ids, A, {A, B})) == [0, 1, 1, 0, 0]
    assert gate_of(prompt_gate(ids, B, {A, B})) == [0, 0, 0, 1, 1]
