import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2dm import spec
from l2dm.errors import BadSpec
from l2dm.methods import registry
from l2dm.sections import Section, described, replaced
from l2dm.spec import (
    GateSpec,
    IntakeSpec,
    Spec,
    TrainSpec,
    from_json,
    options_of,
    override,
    parse,
    to_json,
)


def test_load_of_save_is_the_same_spec():
    train = TrainSpec(method="gated", steps=9, rate=0.5)
    changed = Spec(seed=7, train=train, gate=GateSpec(min_identity=0.1), gated={"gate": "span"})
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
    assert spec.recorded(Spec())["train"].keys() == TrainSpec.model_fields.keys() - {"processes"}


def test_a_door_records_all_options_of_the_chosen_method_and_of_no_other():
    recorded = spec.recorded(override(Spec(), ["train.method=l2dm", "l2dm.distill=2"]))
    assert recorded["l2dm"] == {
        "adapter": "lowrank", "replay": 0.2, "prior": 0.25, "distill": 2.0, "replay_batch": 4
    }  # fmt: skip
    assert not {"gated", "sequential"} & recorded.keys()
    assert parse(recorded) == override(Spec(), ["train.method=l2dm", "l2dm.distill=2"])
    gated = spec.recorded(override(Spec(), ["train.method=gated"]))
    assert (gated["gated"], "l2dm" in gated) == ({"gate": "token"}, False)


def test_left_out_keys_keep_their_defaults():
    assert parse({"train": {"steps": 3}}) == Spec(train=TrainSpec(steps=3))
    assert from_json("") == from_json("{}") == Spec()


@pytest.mark.parametrize(("bits", "levels"), [(0, 0), (4, 23), (6, 34), (128, 255)])
def test_a_spec_that_an_earlier_release_kept_is_read(bits, levels):
    kept = from_json(f'{{"intake": {{"near_duplicate_bits": {bits}, "min_side": 20}}}}')
    assert kept == parse({"intake": {"copy_levels": levels, "min_side": 20}})


@pytest.mark.parametrize("bits", ["-1", "129", "true", "4.0", '"4"', "null"])
def test_what_no_earlier_release_kept_is_refused(bits):
    with pytest.raises(BadSpec, match=r"it has another name now: intake\.copy_levels"):
        from_json(f'{{"intake": {{"near_duplicate_bits": {bits}}}}}')


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
        ({"steps": 3}, r"no key 'steps'; nearest known key: train.steps"),
        (
            {"intake": {"near_duplicate_bits": 4}},
            r"no key 'intake.near_duplicate_bits'; it has another name now: intake.copy_levels, ",
        ),
        ({"near_duplicate_bits": 4}, r"it has another name now: intake.copy_levels, which counts"),
        ({"train": {"method": "l2d"}}, r"train.method: expected one of .*'gated', .*found 'l2d'"),
        ({"train": {"method": 3}}, r"train.method: expected one of .*'gated', .*found 3"),
        ({"train": {"precision": "fp8"}}, r"train.precision: expected one of 'fp32', 'bf16', "),
        ({"train": {"steps": "3"}}, r"train.steps: expected int, found '3'"),
        ({"train": {"steps": 3.0}}, r"train.steps: expected int, found 3.0"),
        ({"train": {"steps": True}}, r"train.steps: expected int, found True"),
        ({"train": {"rate": False}}, r"train.rate: expected float, found False"),
        ({"train": {"steps": 0}}, r"train.steps: expected at least 1, found 0"),
        ({"train": {"rate": -1.0}}, r"train.rate: expected a number that is not negative"),
        ({"train": {"rate": math.nan}}, r"train.rate: .*found nan"),
        ({"memory": {"floor": math.nan}}, r"memory.floor: expected a finite number, found nan"),
        (
            {"train": {"rate": 0, "token_rate": 0}},
            r"train.token_rate: expected a number over 0 where train.rate is 0, found 0.0",
        ),
        ({"train": {"rate": math.inf}}, r"train.rate: expected a finite number, found inf"),
        ({"gate": {"max_drift": math.inf}}, r"gate.max_drift: expected a finite number, found inf"),
        ({"train": 3}, r"train: expected an object, found 3"),
        (
            {"intake": {"min_pictures": 5, "max_pictures": 4}},
            r"intake.max_pictures: expected at least min_pictures \(5\), found 4",
        ),
        ({"intake": {"min_pictures": 30}}, r"expected at least min_pictures \(30\), found 20"),
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
    with pytest.raises(BadSpec, match=r"train.steps: expected at least 1, found 0"):
        replaced(Spec(), train=replaced(TrainSpec(rank=2), steps=0))
    assert replaced(TrainSpec(rank=2), steps=3) == TrainSpec(rank=2, steps=3)


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
        ("steps=3", r"no key 'steps'; nearest known key: train.steps"),
        ("train.distill=3", r"no key 'train.distill'; nearest known key: l2dm.distill"),
        ("train.adapter=spectral", r"no key 'train.adapter'; nearest known key: l2dm.adapter"),
        ("train.gate=span", r"no key 'train.gate'; nearest known key: gated.gate"),
        ("l2dm.distil=3", r"no key 'l2dm.distil'; nearest known key: l2dm.distill"),
        ("l2dm.distill=many", r"l2dm.distill: expected float, found 'many'"),
        ("l2dm.distill=-1", r"l2dm.distill: expected a number that is not negative, found -1"),
        ("l2dm.adapter=lora", r"l2dm.adapter: expected one of 'lowrank', 'spectral', found"),
        ("l2dm=3", r"l2dm: expected an object, found 3"),
        ("gated.gate=span", r"gated.gate: expected an option of the chosen method 'l2dm', found"),
        ("train.steps=many", r"train.steps: expected int, found 'many'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(BadSpec, match=message):
        override(parse({"train": {"method": "l2dm"}}), [setting])


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[1]", "must be a JSON object, found list")]
)
def test_bad_json_is_refused(text, message):
    with pytest.raises(BadSpec, match=message):
        from_json(text)


def test_options_of_another_method_are_refused_with_the_nearest_of_the_chosen_one():
    with pytest.raises(BadSpec) as caught:
        override(Spec(), ["train.method=sequential", "l2dm.adapter=spectral", "l2dm.replay=1"])
    said = "expected an option of the chosen method 'sequential', found one of 'l2dm'; nearest"
    assert [problem.partition(" known")[0] for problem in caught.value.problems] == [
        f"spec l2dm.adapter: {said}", f"spec l2dm.replay: {said}"
    ]  # fmt: skip
    assert caught.value.problems[0].endswith("key: sequential.adapter")
    chosen = override(Spec(), ["train.method=sequential", "sequential.adapter=spectral"])
    assert options_of(chosen).adapter == "spectral"
    with pytest.raises(BadSpec, match=r"sequential.adapter: expected an option of the chosen"):
        override(chosen, ["train.method=l2dm"])


def test_an_option_that_is_its_default_is_as_if_it_was_not_set():
    chosen = override(Spec(), ["train.method=l2dm"])
    said = override(chosen, ["l2dm.distill=3", "l2dm.adapter=lowrank"])
    assert said == chosen
    assert to_json(said) == to_json(chosen)
    assert options_of(said) == options_of(chosen)


def test_what_a_method_lists_stands_in_the_schema():
    schema = Spec.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["TrainSpec"]["properties"]["method"]["enum"] == list(registry.names())
    options = schema["properties"]["gated"]
    assert options["properties"]["gate"]["enum"] == ["token", "span", "prompt"]
    assert options["properties"]["gate"]["description"].startswith("rows of a prompt")


LIGHT = """
import sys
from l2dm.methods import registry
from l2dm.spec import Spec, from_json, may_replay, override, to_json

spec = from_json(to_json(override(Spec(), ["train.method=gated", "train.steps=3"])))
assert not may_replay(spec) and may_replay(from_json('{"train": {"method": "l2dm"}}'))
assert all(registry.page(name).summary for name in registry.names())
assert not {"torch", "diffusers", "numpy"} & sys.modules.keys(), sorted(sys.modules)
"""


def test_no_page_is_imported_before_an_option_is_set():
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=root, timeout=60)


SECTIONS = {
    name: info.annotation
    for name, info in Spec.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
} | {name: registry.options(name) for name in registry.names()}


def numbers() -> Iterator[tuple[str, str, type]]:
    for section, kind in SECTIONS.items():
        for name, info in kind.model_fields.items():
            if info.annotation in (int, float):
                yield section, name, info.annotation


@pytest.mark.parametrize(("section", "name", "kind"), [("", "seed", int), *numbers()])
def test_every_number_of_a_spec_has_a_range(section, name, kind):
    """A number that nobody checks would accept NaN, and a gate that compares with NaN is open."""
    outside = [-1, -(10**12)] if kind is int else [math.nan, math.inf, -math.inf]
    for value in outside:
        data = {name: value} if not section else {section: {name: value}}
        if section in registry.names():
            data["train"] = {"method": section}
        with pytest.raises(BadSpec, match=rf"{section}\.?{name}: expected .*, found"):
            parse(data)


def test_every_key_says_what_it_means_and_what_it_may_be():
    for kind in (Spec, *SECTIONS.values()):
        for one in described(kind):
            assert one.meaning and one.expected, one.key
    keys = {one.key: one for one in described(Spec)}
    assert keys["check.alpha"].expected == "float, a number between 0 and 1"
    assert keys["train.steps"][1:3] == (200, "int, at least 1")
    assert keys["memory.floor"].expected == "float, a finite number"
    assert keys["memory.selection"].expected == "one of 'scored', 'random'"
