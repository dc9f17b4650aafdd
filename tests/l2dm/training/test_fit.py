"""fit(): batches, terms, checkpoints. On the tiny base."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from l2dm import doors
from l2dm.bases.diffusion import NoiseSchedule
from l2dm.bases.model import Model, load_base
from l2dm.bases.text import Text
from l2dm.errors import DoesNotFit
from l2dm.files import manifest
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.l2dm import L2DMOptions
from l2dm.methods.lesson import Batch, Lesson, Pool, draw_batch, join
from l2dm.sections import replaced
from l2dm.spec import CheckSpec, Spec, to_json
from l2dm.training.fit import CHECKPOINT, StepReport, fit
from l2dm.training.learn import checkpoint_key, method_of
from tests.worlds.lessons import (
    REX,
    SIZES,
    TOM,
    Killed,
    adapter_door,
    die,
    first_lesson,
    pool,
    same,
    second_lesson,
    spec_of,
)
from tests.worlds.pretended import gpu

Device = Callable[[], AbstractContextManager[object]]
# each method with its default options is asked the same in test_contract.py
CASES = [("l2dm", "spectral")]


@pytest.mark.parametrize(("method", "adapter"), CASES)
def test_killed_and_resumed_ends_in_the_same_bytes(
    tiny_base: Path, tmp_path: Path, method: str, adapter: str
) -> None:
    spec = spec_of(method, adapter)
    model = load_base(str(tiny_base))
    lesson = first_lesson(model, tmp_path, replay=3)
    undisturbed, curve = fit(method_of(spec), model, lesson, spec.train)

    work = tmp_path / "work"
    with pytest.raises(Killed):
        fit(
            method_of(spec),
            load_base(str(tiny_base)),
            lesson,
            spec.train,
            work=work,
            key="k",
            on_step=die,
        )
    seen: list[StepReport] = []
    resumed, resumed_curve = fit(
        method_of(spec), load_base(str(tiny_base)), lesson, spec.train, work=work, key="k",
        on_step=seen.append,
    )  # fmt: skip
    assert [report.step for report in seen] == [5, 6]
    assert same(undisturbed, resumed)
    assert resumed_curve == curve


@pytest.mark.parametrize("method", ["l2dm", "gated"])
@pytest.mark.parametrize(("before", "after"), [(gpu, gpu), (gpu, nullcontext), (nullcontext, gpu)])
def test_a_run_goes_on_where_another_device_stopped(
    tiny_base: Path, tmp_path: Path, method: str, before: Device, after: Device
) -> None:
    spec, work = spec_of(method), tmp_path / "work"
    lesson = first_lesson(load_base(str(tiny_base)), tmp_path, replay=3)
    undisturbed, curve = fit(method_of(spec), load_base(str(tiny_base)), lesson, spec.train)
    with before(), pytest.raises(Killed):
        fit(method_of(spec), load_base(str(tiny_base)), lesson, spec.train, work=work, on_step=die)
    assert torch.load(work / CHECKPOINT, weights_only=True)["step"] == 4
    seen: list[StepReport] = []
    with after():
        resumed, resumed_curve = fit(
            method_of(spec), load_base(str(tiny_base)), lesson, spec.train, work=work,
            on_step=seen.append,
        )  # fmt: skip
    assert [report.step for report in seen] == [5, 6]
    assert same(undisturbed, resumed)
    assert resumed_curve == curve


def test_a_checkpoint_of_other_inputs_is_not_used(tiny_base: Path, tmp_path: Path) -> None:
    spec, work = spec_of("sequential"), tmp_path / "work"
    model = load_base(str(tiny_base))
    lesson = first_lesson(model, tmp_path)
    fit(method_of(spec), model, lesson, spec.train, work=work, key="one")
    seen: list[StepReport] = []
    fit(method_of(spec), load_base(str(tiny_base)), lesson, spec.train, work=work, key="two",
        on_step=seen.append)  # fmt: skip
    assert [report.step for report in seen] == [1, 2, 3, 4, 5, 6]


def test_a_training_that_has_ended_is_not_done_again(tiny_base: Path, tmp_path: Path) -> None:
    """What fails after it, MLflow say, does not cost it: also where no checkpoint was due then."""
    spec = spec_of("sequential")
    spec = replaced(spec, train=replaced(spec.train, checkpoint_every=4))  # of six steps
    lesson = first_lesson(load_base(str(tiny_base)), tmp_path)
    seen: list[StepReport] = []
    ended, again = (
        fit(method_of(spec), load_base(str(tiny_base)), lesson, spec.train, work=tmp_path / "work",
            key="k", on_step=seen.append)
        for _ in range(2)
    )  # fmt: skip
    assert [report.step for report in seen] == [1, 2, 3, 4, 5, 6]
    assert same(ended[0], again[0]) and ended[1] == again[1]


def test_a_checkpoint_of_other_defaults_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec's text leaves out options that equal their defaults, and those are a release's own."""

    class Heavier(L2DMOptions):
        prior: float = 0.5

    inputs, spec = {"task": "a", "adapter": "b"}, spec_of("l2dm")
    key = checkpoint_key(inputs, spec)
    assert checkpoint_key(inputs, replaced(spec, check=CheckSpec(margin=0.2))) == key
    assert checkpoint_key(inputs, spec_of("l2dm", distill=2.0)) != key
    assert checkpoint_key(inputs | {"task": "c"}, spec) != key
    with monkeypatch.context() as changed:
        changed.setattr("l2dm.methods.l2dm.OPTIONS", Heavier)
        assert to_json(spec_of("l2dm")) == to_json(spec)
        assert checkpoint_key(inputs, spec_of("l2dm")) != key
    monkeypatch.setattr("l2dm.training.learn.__version__", "0.2.0")
    assert checkpoint_key(inputs, spec) != key


def test_terms_of_l2dm_are_weighted_as_eq_4_and_7_say(tiny_base: Path, tmp_path: Path) -> None:
    model = load_base(str(tiny_base))
    lesson = first_lesson(model, tmp_path, replay=3)
    unit = spec_of(replay=1.0, prior=1.0, distill=1.0)
    batch = draw_batch(lesson, model.noise, 0, **SIZES)

    def terms(spec: Spec) -> Mapping[str, Tensor]:
        fresh = load_base(str(tiny_base))
        method = method_of(spec)
        method.begin(fresh, lesson)
        with torch.no_grad():  # move the student away from its teacher, so that ECD is not zero
            for parameter in fresh.adapter.trainable().values():
                parameter.add_(0.1)
        return {name: value.detach() for name, value in method.loss(batch).items()}

    ones = terms(unit)
    weighted = terms(spec_of(replay=0.5, prior=2.0, distill=3.0))
    assert set(ones) == {"new", "replay", "prior", "distill"}
    assert all(value.shape == (2,) for value in ones.values())
    assert ones["distill"].min() > 0
    for name, weight in {"new": 1.0, "replay": 0.5, "prior": 2.0, "distill": 3.0}.items():
        assert torch.allclose(weighted[name], weight * ones[name])


def test_distillation_is_zero_while_student_equals_teacher(tiny_base: Path, tmp_path: Path) -> None:
    model = load_base(str(tiny_base))
    lesson = first_lesson(model, tmp_path, replay=3)
    spec = spec_of()
    method = method_of(spec)
    method.begin(model, lesson)
    terms = method.loss(draw_batch(lesson, model.noise, 0, **SIZES))
    assert terms["distill"].abs().max() < 1e-10


@pytest.mark.parametrize(("method", "adapter"), CASES)
def test_earlier_rows_never_move(
    tiny_base: Path, tmp_path: Path, method: str, adapter: str
) -> None:
    spec = spec_of(method, adapter)
    model = load_base(str(tiny_base))
    lesson = first_lesson(model, tmp_path)
    first, _ = fit(method_of(spec), model, lesson, spec.train)
    door = adapter_door(tmp_path / "first", first, model, spec)
    again = load_base(str(tiny_base))
    second, _ = fit(method_of(spec), again, second_lesson(door), spec.train)
    assert torch.equal(second.rows["rex"], first.rows["rex"])
    assert not torch.equal(second.rows["tom"].flatten(), load_base(str(tiny_base)).noun_row("cat"))


def test_gated_leaves_earlier_weights_as_they_are(tiny_base: Path, tmp_path: Path) -> None:
    spec, model = spec_of("gated"), load_base(str(tiny_base))
    first, _ = fit(method_of(spec), model, first_lesson(model, tmp_path), spec.train)
    door, again = adapter_door(tmp_path / "first", first, model, spec), load_base(str(tiny_base))
    second, _ = fit(method_of(spec), again, second_lesson(door), spec.train)
    assert second.weights.keys() > first.weights.keys()
    assert all(torch.equal(second.weights[name], first.weights[name]) for name in first.weights)


def test_a_line_keeps_its_adapter(tiny_base: Path, tmp_path: Path) -> None:
    model = load_base(str(tiny_base))
    learned, _ = fit(
        method_of(spec_of("sequential")),
        model,
        first_lesson(model, tmp_path),
        spec_of("sequential").train,
    )
    door = adapter_door(tmp_path / "first", learned, model, spec_of("sequential"))
    lesson = Lesson(TOM, door, *(pool(2, "a cat", i) for i in range(3)), seed=0)
    with pytest.raises(DoesNotFit, match="lowrank of rank 2, the spec asks for lowrank of rank 4"):
        method_of(spec_of("l2dm", rank=4)).begin(load_base(str(tiny_base)), lesson)
    with pytest.raises(DoesNotFit, match="continues only gated adapters"):
        method_of(spec_of("gated")).begin(load_base(str(tiny_base)), lesson)


def test_draws_are_functions_of_seed_and_step() -> None:
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 100), "epsilon")
    record = doors.Adapter("none", "none", (), "b", "")
    parent = manifest.Door(Path(), record, "")
    lesson = Lesson(REX, parent, *(pool(3, name, 1) for name in "abc"), seed=1)
    one, again, other = (draw_batch(lesson, schedule, step, **SIZES) for step in (4, 4, 5))
    assert torch.equal(one.new.noisy, again.new.noisy)
    assert not torch.equal(one.new.noisy, other.new.noisy)
    assert [len(group) for group in (one.new, one.replay, one.prior)] == [2, 2, 2]


def test_empty_pools_give_empty_groups() -> None:
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 100), "epsilon")
    parent = manifest.Door(Path(), doors.Adapter("none", "none", (), "b", ""), "")
    empty = Pool(torch.empty(0, 4, 8, 8), ())
    lesson = Lesson(REX, parent, pool(2, "a", 1), empty, empty, seed=1)
    batch = draw_batch(lesson, schedule, 0, **SIZES)
    assert (len(batch.replay), len(batch.prior)) == (0, 0)
    assert len(join([batch.new, batch.replay, batch.prior])) == 2


class Explodes:
    """A method whose loss stops being finite."""

    replays, replay_batch = False, 0

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        self.weight = torch.nn.Parameter(torch.ones(1))
        return Trainable({"w": self.weight})

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"new": self.weight * torch.inf}

    def end(self) -> Learned:
        raise AssertionError("not reached")


@pytest.mark.parametrize(("method", "adapter"), [("l2dm", "lowrank"), ("gated", "")])
@pytest.mark.parametrize("group", ["rate", "token_rate"])
def test_a_group_whose_rate_is_zero_stays_and_the_other_learns(
    group: str, method: str, adapter: str, tiny_base: Path, tmp_path: Path
) -> None:
    spec, model = spec_of(method, adapter), load_base(str(tiny_base))
    train = replaced(spec.train, **{group: 0.0})
    lesson = first_lesson(model, tmp_path)
    begun = method_of(spec).begin(load_base(str(tiny_base)), lesson)
    learned, _ = fit(method_of(spec), model, lesson, train)

    row = torch.equal(learned.rows["rex"].flatten(), begun.rows["rex"].detach().cpu().flatten())
    weights = all(
        torch.equal(learned.weights[name], value.detach().cpu().to(learned.weights[name].dtype))
        for name, value in begun.weights.items()
    )
    assert (weights, row) == (group == "rate", group == "token_rate")


def test_a_loss_that_is_not_finite_stops_training(tiny_base: Path, tmp_path: Path) -> None:
    model = load_base(str(tiny_base))
    with pytest.raises(DoesNotFit, match=r"the loss became inf at step 1; lower train\.rate"):
        fit(Explodes(), model, first_lesson(model, tmp_path), spec_of().train)


def test_sums_are_taken_in_one_order_while_a_method_learns_and_not_afterwards(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that adds up in no fixed order (`x[index]`, an index twice) learns the same, too."""
    seen = []
    model, spec = load_base(str(tiny_base)), spec_of()
    method = method_of(spec)
    loss = method.loss

    def watched(batch: Batch) -> Mapping[str, Tensor]:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return loss(batch)

    monkeypatch.setattr(method, "loss", watched)
    fit(method, model, first_lesson(model, tmp_path), spec.train)
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_gradient_of_a_prompt_that_comes_twice_is_one_number() -> None:
    """The sum of `x[index]` over threads is not; 200 tries find it in the older form each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        states = torch.randn(3, 32, 192, requires_grad=True)
        rows = [0, 1, 0, 2, 0, 1, 0, 0]
        seeds = torch.randn(8, 32, 192)
        found = set()
        for _ in range(200):
            text = Text(torch.zeros(3, 32, dtype=torch.long), states)[rows]
            (gradient,) = torch.autograd.grad((text.states * seeds).sum(), states)
            found.add(gradient.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
