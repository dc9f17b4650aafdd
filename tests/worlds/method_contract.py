"""What every method answers, whoever wrote it and wherever its page lies.

`QUESTIONS` are functions of a method's name, a base and an empty folder. A page that lives in a
test registers itself and asks them, too.
"""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from l2dm.bases.attach import attach_door
from l2dm.bases.model import load_base
from l2dm.errors import BadSpec, DoesNotFit
from l2dm.methods import registry
from l2dm.methods.lesson import draw_batch
from l2dm.sections import Section, described
from l2dm.spec import Spec, may_replay, options_of, override, parse, recorded
from l2dm.training.fit import StepReport, fit
from l2dm.training.learn import method_of
from tests.worlds.lessons import (
    REX,
    SIZES,
    TOM,
    Killed,
    adapter_door,
    die,
    first_lesson,
    same,
    second_lesson,
    spec_of,
)

Question = Callable[[str, Path, Path], None]
PLAIN = "a photo of a dog"  # names no placeholder


def says_who_it_is(name: str, base: Path, folder: Path) -> None:
    page = registry.page(name)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert name not in Spec.model_fields, "a section of the spec is called like it"
    assert page.summary.endswith(".")
    assert name == page.load().NAME
    assert inspect.getdoc(page.load().METHOD)


def replays_what_its_page_says(name: str, base: Path, folder: Path) -> None:
    spec = parse({"train": {"method": name}})
    method = method_of(spec)
    assert method.replays == may_replay(spec)
    assert method.replay_batch > 0 or not method.replays


def its_options_can_be_set_and_are_recorded(name: str, base: Path, folder: Path) -> None:
    kind = registry.options(name)
    assert issubclass(kind, Section)
    chosen = parse({"train": {"method": name}})
    assert recorded(chosen)[name] == kind().model_dump()
    for one in described(kind):
        assert one.meaning and one.expected, one.key
        assert isinstance(one.default, bool | int | float | str), one.key
        said = f"{name}.{one.key}={json.dumps(one.default)}"
        assert override(chosen, [said]) == chosen
        assert json.loads(json.dumps(recorded(chosen)))[name][one.key] == one.default
        other = next(method for method in registry.names() if method != name)
        with pytest.raises(BadSpec, match=rf"{name}\.{one.key}: expected an option of the chosen"):
            override(chosen, [said, f"train.method={other}"])
        with pytest.raises(BadSpec, match=rf"nearest known key: {name}\.{one.key}"):
            override(chosen, [f"{name}.{one.key}z=1"])
    assert isinstance(options_of(chosen), kind)


def begins_without_changing_a_plain_prompt(name: str, base: Path, folder: Path) -> None:
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))

    def output() -> torch.Tensor:
        with torch.no_grad():
            return model.predict(noisy, torch.tensor([300]), model.read([PLAIN]))

    model = load_base(str(base))
    before = output()
    trainable = method_of(spec_of(name)).begin(model, first_lesson(model, folder))
    assert torch.equal(output(), before)
    assert trainable.all()
    assert all(parameter.requires_grad for parameter in trainable.all().values())


def has_one_finite_value_a_sample(name: str, base: Path, folder: Path) -> None:
    model, method = load_base(str(base)), method_of(spec_of(name))
    lesson = first_lesson(model, folder, replay=3)
    method.begin(model, lesson)
    terms = method.loss(draw_batch(lesson, model.noise, 0, **SIZES))
    assert terms
    for term in terms.values():
        assert term.shape == (2,)
        assert torch.isfinite(term).all()


def killed_and_resumed_ends_in_the_same_bytes(name: str, base: Path, folder: Path) -> None:
    spec, work = spec_of(name), folder / "work"

    def run(**more: object) -> object:
        return fit(method_of(spec), load_base(str(base)), lesson, spec.train, **more)  # type: ignore[arg-type]

    lesson = first_lesson(load_base(str(base)), folder, replay=3)
    undisturbed, curve = run()
    with pytest.raises(Killed):
        run(work=work, key="k", on_step=die)
    seen: list[StepReport] = []
    resumed, resumed_curve = run(work=work, key="k", on_step=seen.append)
    assert [report.step for report in seen] == [5, 6]
    assert same(undisturbed, resumed)
    assert resumed_curve == curve


def earlier_rows_never_move_and_what_is_left_can_be_loaded(
    name: str, base: Path, folder: Path
) -> None:
    spec, model = spec_of(name), load_base(str(base))
    first, _ = fit(method_of(spec), model, first_lesson(model, folder), spec.train)
    door = adapter_door(folder / "first", first, model, spec)
    attach_door(load_base(str(base)), door)
    again = load_base(str(base))
    second, _ = fit(method_of(spec), again, second_lesson(door), spec.train)
    assert torch.equal(second.rows["rex"], first.rows["rex"])
    assert not torch.equal(second.rows["tom"].flatten(), load_base(str(base)).noun_row("cat"))
    assert second.state.keys() >= first.state.keys()
    both = adapter_door(folder / "second", second, again, spec, (REX, TOM))
    attach_door(load_base(str(base)), both)


def another_rank_is_refused_at_once_or_is_left_as_it_can_be_loaded(
    name: str, base: Path, folder: Path
) -> None:
    spec, other, model = spec_of(name, rank=2), spec_of(name, rank=3), load_base(str(base))
    first, _ = fit(method_of(spec), model, first_lesson(model, folder), spec.train)
    door = adapter_door(folder / "first", first, model, spec)
    try:
        method_of(other).begin(load_base(str(base)), second_lesson(door))
    except DoesNotFit as error:
        assert re.search(r"rank.* 2\b.*rank.* 3\b|rank is 2, the spec asks for 3", str(error))
        return
    again = load_base(str(base))
    second, _ = fit(method_of(other), again, second_lesson(door), other.train)
    both = adapter_door(folder / "second", second, again, other, (REX, TOM))
    attach_door(load_base(str(base)), both)


QUESTIONS: tuple[Question, ...] = (
    says_who_it_is,
    replays_what_its_page_says,
    its_options_can_be_set_and_are_recorded,
    begins_without_changing_a_plain_prompt,
    has_one_finite_value_a_sample,
    killed_and_resumed_ends_in_the_same_bytes,
    earlier_rows_never_move_and_what_is_left_can_be_loaded,
    another_rank_is_refused_at_once_or_is_left_as_it_can_be_loaded,
)
