"""The questions that every adapter answers, put to all of them on the tiny base."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from l2dm.adapters import gated, lowrank, spectral
from l2dm.adapters.contract import AttachedAdapter, NoAdapter, compare, holding, require_finite
from l2dm.bases import attach as attaching
from l2dm.bases.model import Model, load_base
from l2dm.doors import Concept
from l2dm.errors import BadPrompt, DoesNotFit, NothingAttached

PROMPT = "a photo of a <rex> dog"
Attach = Callable[[Model], AttachedAdapter]


def attach_lowrank(model: Model) -> AttachedAdapter:
    generator = torch.Generator().manual_seed(0)
    return attaching.attach_new(model, "lowrank", {"rank": 2}, generator)


def attach_spectral(model: Model) -> AttachedAdapter:
    return attaching.attach_new(model, "spectral", {}, torch.Generator())


def attach_gated(gate: str) -> Attach:
    def attach(model: Model) -> AttachedAdapter:
        generator, rex = torch.Generator().manual_seed(0), Concept("rex", "dog")
        adapter = gated.put_on(model, {"rank": 2, "gate": gate}, generator, [rex])
        adapter.learn("rex")
        model.adapter = adapter
        return adapter

    return attach


KINDS: dict[str, Attach] = {
    "lowrank": attach_lowrank,
    "spectral": attach_spectral,
    "gated-token": attach_gated("token"),
    "gated-span": attach_gated("span"),
    "gated-prompt": attach_gated("prompt"),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(tiny_base: Path) -> Model:
    model = load_base(str(tiny_base))
    model.add_placeholder("rex", model.noun_row("dog"))
    return model


def output(model: Model, prompt: str = PROMPT) -> torch.Tensor:
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model.predict(noisy, torch.tensor([10, 500]), model.read([prompt] * 2))


def perturb(adapter: AttachedAdapter, seed: int = 1) -> None:
    """A silent re-initialisation would be seen after this."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.trainable().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_identity_at_the_start(model: Model, kind: str) -> None:
    before = output(model)
    KINDS[kind](model)
    assert torch.equal(output(model), before)


def test_low_rank_paths_start_within_one_over_the_root_of_their_width(
    model: Model, kind: str
) -> None:
    if kind == "spectral":
        pytest.skip("spectral shifts have no factors")
    starts = {name: p for name, p in KINDS[kind](model).trainable().items() if p.any()}
    assert {name.rsplit(".", 1)[1] for name in starts} <= {"weight", "down"}
    for name, start in starts.items():
        width = start.shape[0] if name.endswith(".down") else start.shape[1]
        assert 0.8 < start.abs().max() * width**0.5 <= 1, name


def test_changing_weights_changes_the_output(model: Model, kind: str) -> None:
    before = output(model)
    perturb(KINDS[kind](model))
    assert not torch.allclose(output(model), before, atol=1e-4)


def test_disabled_is_the_base_bit_for_bit(model: Model, kind: str) -> None:
    before = output(model)
    adapter = KINDS[kind](model)
    perturb(adapter)
    changed = output(model)
    with model.plain():
        assert torch.equal(output(model), before)
    assert torch.equal(output(model), changed)
    assert all(parameter.requires_grad for parameter in adapter.trainable().values())


def test_saving_and_loading_changes_nothing(model: Model, kind: str, tiny_base: Path) -> None:
    adapter = KINDS[kind](model)
    perturb(adapter)
    adapter.load(adapter.state())  # gated weights are rounded to half precision, once
    expected = output(model)
    other = load_base(str(tiny_base))
    other.add_placeholder("rex", other.noun_row("dog"))
    KINDS[kind](other).load(adapter.state())
    assert torch.equal(output(other), expected)


def test_state_is_a_copy(model: Model, kind: str) -> None:
    adapter = KINDS[kind](model)
    kept = {name: tensor.clone() for name, tensor in adapter.state().items()}
    saved = adapter.state()
    perturb(adapter)
    assert all(torch.equal(saved[name], kept[name]) for name in kept)


def test_gradients_only_where_promised(model: Model, kind: str) -> None:
    adapter = KINDS[kind](model)
    perturb(adapter)
    noisy = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    model.predict(noisy, torch.tensor([10]), model.read([PROMPT])).square().mean().backward()
    promised = {id(parameter) for parameter in adapter.trainable().values()}
    networks = model.networks.named().values()
    moved = [
        parameter
        for network in networks
        for parameter in network.parameters()
        if parameter.grad is not None
    ]
    assert {id(parameter) for parameter in moved} <= promised
    assert any(p.grad is not None and p.grad.any() for p in adapter.trainable().values())


def test_teacher_and_student_share_the_network(model: Model, kind: str) -> None:
    adapter = KINDS[kind](model)
    start = {name: p.detach().clone() for name, p in adapter.trainable().items()}
    teacher = output(model)
    perturb(adapter)
    student = output(model)
    with holding(adapter.trainable(), start):
        assert torch.equal(output(model), teacher)
    assert torch.equal(output(model), student)


def test_missing_foreign_misshapen_and_nan_weights_are_refused(model: Model, kind: str) -> None:
    adapter = KINDS[kind](model)
    good = adapter.state()
    name = min(good)
    with pytest.raises(
        DoesNotFit, match=f"adapter weights: expected .* names, found 1 missing .*{name}"
    ):
        adapter.load({key: value for key, value in good.items() if key != name})
    with pytest.raises(DoesNotFit, match=r"foreign \['stranger'\]"):
        adapter.load(good | {"stranger": torch.zeros(1)})
    with pytest.raises(DoesNotFit, match=r"expected .* found"):
        adapter.load(good | {name: good[name].flatten()[:-1]})
    with pytest.raises(DoesNotFit, match="holds NaN or infinity"):
        adapter.load(good | {name: torch.full_like(good[name], torch.nan)})


def test_zero_targets_are_refused() -> None:
    network = torch.nn.Sequential(torch.nn.ReLU())
    with pytest.raises(NothingAttached, match="found none"):
        lowrank.attach(network, [], rank=2, generator=torch.Generator())
    with pytest.raises(NothingAttached, match=r"\['0'\]"):
        lowrank.attach(network, ["0"], rank=2, generator=torch.Generator())
    with pytest.raises(NothingAttached, match="found none"):
        spectral.attach({"unet": network})
    with pytest.raises(NothingAttached, match="found none"):
        gated.attach(network, {}, lambda ids, name, noun: ids > 0, {})


def test_no_adapter_refuses_weights() -> None:
    with pytest.raises(DoesNotFit, match=r"foreign \['a'\]"):
        NoAdapter().load({"a": torch.zeros(1)})
    compare({}, {})


def test_tensors_are_compared_in_the_words_of_whoever_asks() -> None:
    own = {"a": torch.zeros(2), "count": torch.zeros((), dtype=torch.int64)}
    with pytest.raises(DoesNotFit, match=r"^state: expected a as \(2,\).*found \(1,\).*; again$"):
        compare(own, own | {"a": torch.zeros(1)}, "state", "again")
    with pytest.raises(DoesNotFit, match=r"^state: .* found 1 missing \['a'\] and 0.*; again$"):
        compare(own, {"count": own["count"]}, "state", "again")
    for wild in (torch.nan, torch.inf):
        with pytest.raises(DoesNotFit, match=r"^state: .* that a holds NaN or infinity; train"):
            compare(own, own | {"a": torch.full((2,), wild)}, "state", "again")
        with pytest.raises(DoesNotFit, match=r"^state: .* that a holds NaN or infinity; train"):
            require_finite(own | {"a": torch.full((2,), wild)}, "state")
    require_finite(own, "state")


def test_adapters_are_drawn_from_the_generator_they_are_given(tiny_base: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        model = load_base(str(tiny_base))
        torch.manual_seed(seed * 100 + len(states))  # the global generator must not matter
        generator = torch.Generator().manual_seed(seed)
        states.append(attaching.attach_new(model, "lowrank", {"rank": 2}, generator).state())
    first, same, other = states
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_strength_of_one_is_as_learned_and_of_nought_the_base(model: Model, kind: str) -> None:
    base = output(model)
    adapter = KINDS[kind](model)
    perturb(adapter)
    learned = output(model)
    assert not torch.equal(learned, base)
    for strength, expected in ((1.0, learned), (0.0, base)):
        with adapter.scaled({"rex": strength}):
            assert torch.equal(output(model), expected)
    with adapter.scaled({"rex": 0.5}):
        half = output(model)
    assert not torch.equal(half, learned)
    assert (half - base).norm() < (learned - base).norm()
    assert torch.equal(output(model), learned)


def test_weights_of_all_concepts_have_one_strength(model: Model, kind: str) -> None:
    adapter = KINDS[kind](model)
    if kind.startswith("gated"):
        with adapter.scaled({"rex": 0.5, "tom": 1.0}):
            output(model)
        return
    with pytest.raises(BadPrompt, match=r"found <rex> 0\.5, <tom> 1: this line learned one set"):
        adapter.scaled({"rex": 0.5, "tom": 1.0}).__enter__()
