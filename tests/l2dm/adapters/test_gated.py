"""What only gated adapters promise: exactness, bit for bit (docs/methods.md)."""

from pathlib import Path

import pytest
import torch

from l2dm.adapters import gated
from l2dm.bases.model import Model, load_base
from l2dm.bases.sampling import Shot, draw
from l2dm.spec import SamplingSpec

NOUNS = {"rex": "dog", "tom": "cat", "keys": "cup"}  # "keys" is a method of dictionaries


def line(tiny_base: Path, *names: str, gate: str = "token") -> Model:
    """A model that knows these concepts, each with its own fixed weights."""
    model = load_base(str(tiny_base))
    for name in names:
        row = torch.randn(24, generator=torch.Generator().manual_seed(len(name)))
        model.add_placeholder(name, row)
    adapter = gated.put_on(model, {"rank": 2, "gate": gate}, torch.Generator())
    for name in names:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        adapter.add(name, generator=generator, noun=NOUNS[name])
        adapter.learn(name)
        with torch.no_grad():
            for parameter in adapter.trainable().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.adapter = adapter
    return model


def pictures(model: Model, prompt: str) -> torch.Tensor:
    return draw(model, [Shot(prompt, 1), Shot(prompt, 2)], SamplingSpec())


@pytest.mark.parametrize("gate", ["token", "span", "prompt"])
def test_a_prompt_without_placeholder_is_the_base(tiny_base: Path, gate: str) -> None:
    base = load_base(str(tiny_base))
    knows = line(tiny_base, "rex", "tom", gate=gate)
    assert torch.equal(pictures(knows, "a photo of a dog"), pictures(base, "a photo of a dog"))


@pytest.mark.parametrize("gate", ["token", "span", "prompt"])
def test_later_concepts_change_no_earlier_picture(tiny_base: Path, gate: str) -> None:
    prompt = "a photo of a <rex> dog"
    alone = pictures(line(tiny_base, "rex", gate=gate), prompt)
    later = pictures(line(tiny_base, "rex", "tom", "keys", gate=gate), prompt)
    assert torch.equal(alone, later)
    assert not torch.equal(alone, pictures(line(tiny_base, "rex", gate=gate), "a photo of a dog"))


def test_rows_of_a_batch_do_not_disturb_each_other(tiny_base: Path) -> None:
    model = line(tiny_base, "rex", "tom")
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    timestep = torch.tensor(300)

    def first_row(second_prompt: str) -> torch.Tensor:
        text = model.read(["a photo of a dog", second_prompt])
        with torch.no_grad():
            return model.predict(noisy, timestep, text)[0]

    plain = first_row("a photo of a cat")
    assert torch.equal(first_row("a photo of a <tom> cat"), plain)
    assert torch.equal(first_row("a <rex> dog and a <tom> cat"), plain)


def test_two_concepts_in_one_prompt_use_both_adapters(tiny_base: Path) -> None:
    prompt = "a <rex> dog and a <tom> cat"
    both = line(tiny_base, "rex", "tom")
    with_both = pictures(both, prompt)
    with torch.no_grad():
        for name, parameter in both.adapter._all().items():  # type: ignore[attr-defined]
            if name.startswith("tom/"):
                parameter.zero_()
    assert not torch.equal(pictures(both, prompt), with_both)


def test_gate_rows_are_named_by_tokens(tiny_base: Path) -> None:
    model = line(tiny_base, "rex", gate="span")
    text = model.read(["a <rex> dog"])
    switch = model.adapter._switch  # type: ignore[attr-defined]
    with model.adapter.reading(text.ids):
        opened = switch.rows["rex"][0, :, 0].nonzero().flatten().tolist()
    placeholder = text.ids[0].tolist().index(model.placeholders.ids["rex"])
    dog = len(model.token_ids("dog"))
    assert opened == list(range(placeholder, placeholder + 1 + dog))
    assert not switch.rows
