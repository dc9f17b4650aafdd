import dataclasses
import math

import pytest

from l2dm import spec
from l2dm.errors import BadSpec
from l2dm.spec import GateSpec, IntakeSpec, Spec, TrainSpec, from_json, override, parse, to_json


def test_load_of_save_is_the_same_spec():
    changed = Spec(seed=7, train=TrainSpec(method="gated", steps=9, rate=0.5), gate=GateSpec(0.1))
    assert from_json(to_json(changed)) == changed
    assert from_json(to_json(Spec())) == Spec()
    assert to_json(from_json(to_json(changed))) == to_json(changed)


def test_a_door_records_what_may_change_its_bytes_and_nothing_of_the_machines():
    settings = ["memory.fan_out=1", "evaluate.fan_out=1", "evaluate.shards=4", "check.margin=0.3"]
    shared = override(Spec(), settings)
    assert spec.recorded(shared) == spec.recorded(Spec())
    assert parse(spec.recorded(shared)) == Spec()
    together = override(Spec(), ["train.processes=2"])
    assert spec.recorded(together)["train"].pop("processes") == 2
    assert spec.recorded(Spec())["train"].keys() == {
        field.name for field in dataclasses.fields(TrainSpec)
    } - {"processes"}


def test_left_out_keys_keep_their_defaults():
    assert parse({"train": {"steps": 3}}) == Spec(train=TrainSpec(steps=3))
    assert from_json("") == from_json("{}") == Spec()


def test_a_whole_number_is_a_float_where_a_float_is_meant():
    value = parse({"train": {"rate": 1}}).train.rate
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": {"stepz": 3}}, r"no key 'train.stepz'; nearest known key: train.steps"),
        ({"tran": {"steps": 3}}, r"no key 'tran'; nearest known key: train"),
        ({"rank": 3}, r"no key 'rank'; nearest known key: train.rank"),
        ({"train": {"bugdet": 3}}, r"no key 'train.bugdet'; nearest known key: memory.budget"),
        ({"train": {"method": "l2d"}}, r"train.method: expected one of \('l2dm', .*found 'l2d'"),
        ({"train": {"steps": "3"}}, r"train.steps: expected int, found '3'"),
        ({"train": {"steps": 3.0}}, r"train.steps: expected int, found 3.0"),
        ({"train": {"steps": True}}, r"train.steps: expected int, found True"),
        ({"train": {"rate": False}}, r"train.rate: expected float, found False"),
        ({"train": {"steps": 0}}, r"train.steps: expected at least 1, found 0"),
        ({"train": {"rate": -1.0}}, r"train.rate: expected a number that is not negative"),
        ({"train": {"rate": math.nan}}, r"train.rate: .*found nan"),
        ({"memory": {"floor": math.nan}}, r"memory.floor: expected a finite number, found nan"),
        ({"gate": {"max_drift": math.inf}}, r"gate.max_drift: expected a finite number, found inf"),
        ({"train": 3}, r"train: expected an object, found 3"),
        (
            {"intake": {"min_pictures": 5, "max_pictures": 4}},
            r"intake.max_pictures: expected at least min_pictures \(5\), found 4",
        ),
    ],
)
def test_bad_values_are_refused_by_name(data, message):
    with pytest.raises(BadSpec, match=message):
        parse(data)


def test_every_problem_is_listed_at_once():
    with pytest.raises(BadSpec) as caught:
        parse({"zeed": 1, "train": {"stepz": 3, "steps": 0, "rank": "8"}, "prior": {"count": -1}})
    named = [problem.split(":")[0].split(";")[0] for problem in caught.value.problems]
    assert sorted(named) == [
        "spec has no key 'train.stepz'",
        "spec has no key 'zeed'",
        "spec prior.count",
        "spec train.rank",
        "spec train.steps",
    ]


def test_values_are_checked_when_a_spec_is_made():
    with pytest.raises(BadSpec, match=r"seed: .*found -1"):
        Spec(seed=-1)
    with pytest.raises(BadSpec, match=r"intake.min_side"):
        Spec(intake=IntakeSpec(min_side=0))


def test_override_changes_only_what_it_names():
    changed = override(Spec(), ["train.steps=3", "train.method=gated", "memory.floor=-0.5"])
    assert changed.train == TrainSpec(steps=3, method="gated")
    assert changed.memory.floor == -0.5
    assert changed.prior == Spec().prior


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.steps", r"'train.steps': expected section.key=value"),
        ("train.stepz=3", r"no key 'train.stepz'; nearest known key: train.steps"),
        ("train.steps.more=3", r"'steps' has no keys of its own"),
        ("train=3", r"train: expected an object, found 3"),
        ("train.steps=many", r"train.steps: expected int, found 'many'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(BadSpec, match=message):
        override(Spec(), [setting])


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[1]", "must be a JSON object, found list")]
)
def test_bad_json_is_refused(text, message):
    with pytest.raises(BadSpec, match=message):
        from_json(text)


def test_every_number_of_a_spec_has_a_range():
    """A number that nobody checks would accept NaN, and a gate that compares with NaN is open."""
    for section in dataclasses.fields(Spec):
        default = getattr(Spec(), section.name)
        if not dataclasses.is_dataclass(default):
            continue
        for name, value in dataclasses.asdict(default).items():
            if isinstance(value, float):
                with pytest.raises(BadSpec, match=rf"{section.name}\.{name}"):
                    parse({section.name: {name: math.nan}})


def test_with_method_keeps_the_rest():
    before = Spec(seed=3, train=TrainSpec(steps=5))
    assert spec.with_method(before, "sequential").train == TrainSpec(steps=5, method="sequential")
    assert spec.with_method(before, "sequential").seed == 3
