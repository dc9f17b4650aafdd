"""Steady learning: the shared adapter, held near its own running mean of every weight.

This file is the whole page of a method with a state of its own. Nothing else in the project names
it: it registers itself, learns two tasks through the six steps, is killed and resumed, exported,
and shows up wherever methods are listed.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from l2dm import steps
from l2dm.bases.model import Model, load_base
from l2dm.doors import Adapter
from l2dm.errors import BadSpec, DoesNotFit
from l2dm.export.write import export
from l2dm.files import door_files, manifest
from l2dm.methods import registry
from l2dm.methods.contract import Learned, Trainable
from l2dm.methods.lesson import Batch, Lesson
from l2dm.methods.losses import denoise_loss
from l2dm.methods.shared import begin_shared, learned_shared
from l2dm.methods.text_cache import Reading
from l2dm.sections import Section, replaced
from l2dm.spec import Spec, TrainSpec, override, parse, recorded, to_json
from l2dm.training.fit import StepReport, fit
from l2dm.training.learn import method_of
from pipelines.commands.cli import app
from tests.worlds.lessons import Killed, adapter_door, first_lesson, second_lesson, spec_of
from tests.worlds.method_contract import QUESTIONS, Question
from tests.worlds.six_steps import REX, SPEC, TOM, Run, upload

# --- the page ---

NAME = "steady"
REPLAYS = False


class SteadyOptions(Section):
    """How it is held."""

    pull: float = Field(0.5, ge=0, description="weight of the distance to the running mean")
    memory: float = Field(0.9, gt=0, lt=1, description="share of the mean that a step keeps")


class Steady:
    """New pictures, and a pull towards the running mean of the weights over all tasks."""

    replays = REPLAYS
    replay_batch = 0

    def __init__(self, spec: TrainSpec, options: SteadyOptions) -> None:
        self._spec, self._options = spec, options

    def begin(self, model: Model, lesson: Lesson) -> Trainable:
        """The mean goes on where the last task left it."""
        row = begin_shared(model, lesson, "lowrank", self._spec.rank)
        self._model, self._read = model, Reading(model, lesson.concept.name)
        self._weights = model.adapter.trainable()
        fresh = {f"mean/{name}": one.detach().clone() for name, one in self._weights.items()}
        self._state = lesson.inherited(fresh | {"steps": torch.zeros((), dtype=torch.int64)})
        return Trainable(self._weights, {lesson.concept.name: row}, self._state)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """L_SD, and the distance of every weight to its mean, which then moves."""
        new, means = batch.new, self._means()
        predicted = self._model.predict(new.noisy, new.timesteps, self._read(new.prompts))
        apart = [(one - means[name]).square().mean() for name, one in self._weights.items()]
        pull = self._options.pull * torch.stack(apart).sum()
        with torch.no_grad():
            for name, one in self._weights.items():
                means[name].lerp_(one, 1 - self._options.memory)
            self._state["steps"] += 1
        return {"new": denoise_loss(predicted, new.target), "pull": pull.expand(len(new))}

    def end(self) -> Learned:
        """The adapter, and the mean for the next task."""
        return learned_shared(self._model, self._state)

    def _means(self) -> dict[str, Tensor]:
        return {name: self._state[f"mean/{name}"] for name in self._weights}


OPTIONS, METHOD = SteadyOptions, Steady

# --- what follows of it ---


@pytest.fixture(scope="module", autouse=True)
def page() -> Iterator[None]:
    registry.register(sys.modules[__name__])
    yield
    registry.unregister(NAME)


@pytest.fixture(scope="module")
def spec(page: None) -> Spec:
    return override(SPEC, [f"train.method={NAME}", f"{NAME}.pull=0.25", "train.steps=5"])


@pytest.fixture(scope="module")
def runs(spec: Spec, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    root = tmp_path_factory.mktemp("own-page")
    empty = steps.empty_release(root / "empty", "pets", str(tiny_base)).folder
    first = Run(root / "1", tiny_base, upload(root, REX, 1), empty, 1, spec)
    second = Run(root / "2", tiny_base, upload(root, TOM, 2), first.release.folder, 2, spec)
    return first, second


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_it_answers_what_every_method_answers(
    question: Question, tiny_base: Path, tmp_path: Path
) -> None:
    question(NAME, tiny_base, tmp_path)


def test_two_tasks_pass_the_six_steps_and_the_state_goes_with_the_line(
    runs: tuple[Run, Run], spec: Spec
) -> None:
    first, second = runs
    assert second.adapter.record.method == NAME
    assert second.adapter.record.concepts == (REX, TOM)
    assert second.adapter.spec[NAME] == {"pull": 0.25, "memory": 0.9}
    assert second.adapter.spec == recorded(spec)
    inside = manifest.read(second.release.folder / door_files.ADAPTER, Adapter)
    one, two = door_files.read_state(first.adapter), door_files.read_state(inside)
    assert one.keys() == two.keys() == door_files.read_state(second.adapter).keys()
    assert (one["steps"], two["steps"]) == (5, 10)  # the second task counted on
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_without_the_state_the_second_task_learns_something_else(
    runs: tuple[Run, Run], spec: Spec, tiny_base: Path, tmp_path: Path
) -> None:
    first, second = runs
    record = replaced_method(first.adapter, tmp_path / "another")
    again = fit_on(record, spec, tiny_base)
    assert again["steps"] == 5  # what another method left means nothing to this one
    assert fit_on(first.adapter, spec, tiny_base)["steps"] == 10
    assert second.adapter.path(door_files.STATE).is_file()


def replaced_method(adapter: manifest.Door[Adapter], folder: Path) -> manifest.Door[Adapter]:
    """The same adapter as if plain sequential learning had made it: without a state."""
    record = Adapter(**vars(adapter.record) | {"method": "sequential"})
    weights, rows = door_files.read_weights(adapter), door_files.read_rows(adapter)
    return manifest.write(folder, record, partial(write, weights=weights, rows=rows))


def write(draft: Path, weights: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> None:
    door_files.write_adapter(draft, weights, rows)


def fit_on(parent: manifest.Door[Adapter], spec: Spec, base: Path) -> Mapping[str, Tensor]:
    learned, _ = fit(method_of(spec), load_base(str(base)), second_lesson(parent), spec.train)
    return learned.state


@pytest.mark.parametrize("at", [1, 3, 5])
def test_killed_and_resumed_it_ends_in_the_same_bytes(
    at: int, runs: tuple[Run, Run], tmp_path: Path
) -> None:
    second = runs[1]
    given = (second.home / "task", second.parent, second.home / "prior", second.home / "memory")

    def die(report: StepReport) -> None:
        if report.step == at:
            raise Killed

    work, seen = tmp_path / "work", list[StepReport]()
    with pytest.raises(Killed):
        steps.train(*given, tmp_path / "out", second.context, work=work, on_step=die)
    assert not (tmp_path / "out").exists()
    again = steps.train(*given, tmp_path / "out", second.context, work=work, on_step=seen.append)
    assert seen[0].step == (at - 1) // 2 * 2 + 1  # a checkpoint after every second step
    assert again.digest == second.adapter.digest
    names = {
        door_files.WEIGHTS,
        door_files.ROWS,
        door_files.STATE,
        door_files.CURVE,
        "manifest.json",
    }
    assert {path.name for path in again.folder.iterdir()} == names
    for name in names:
        assert again.path(name).read_bytes() == second.adapter.path(name).read_bytes(), name


def test_it_is_exported(runs: tuple[Run, Run], tiny_base: Path, tmp_path: Path) -> None:
    files = export(runs[1].release.folder, str(tiny_base), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in files}
    assert {"pets.kohya.safetensors", "embeddings/tom.safetensors", "export.json"} <= names
    assert json.loads((tmp_path / "out" / "export.json").read_text())["method"] == NAME
    lora = load_file(tmp_path / "out" / "pytorch_lora_weights.safetensors")
    assert len(lora) == len(door_files.read_weights(runs[1].adapter))


def test_the_command_line_and_the_schema_list_it() -> None:
    told = CliRunner().invoke(app, ["learn", "--help"], env={"COLUMNS": "200"})
    assert NAME in told.output
    assert "Steady learning: the shared adapter" in told.output
    listed = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "200"}).output
    assert f"{NAME}.pull" in listed
    schema = Spec.model_json_schema()
    assert NAME in schema["$defs"]["TrainSpec"]["properties"]["method"]["enum"]
    assert schema["properties"][NAME]["properties"]["pull"]["minimum"] == 0


def test_its_options_are_checked_like_any_others() -> None:
    with pytest.raises(BadSpec) as caught:
        parse({"train": {"method": NAME}, NAME: {"pul": 1, "memory": 1}, "gated": {"gate": "span"}})
    assert sorted(caught.value.problems) == [
        "spec gated.gate: expected an option of the chosen method 'steady', found one of 'gated'; "
        "nearest known key: steady.memory",
        "spec has no key 'steady.pul'; nearest known key: steady.pull",
        "spec steady.memory: expected a number between 0 and 1, found 1",
    ]
    chosen = parse({"train": {"method": NAME}})
    assert to_json(override(chosen, [f"{NAME}.pull=0.5"])) == to_json(chosen)


def test_a_state_of_other_shapes_or_with_nan_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    chosen, model = spec_of(NAME), load_base(str(tiny_base))
    learned, _ = fit(method_of(chosen), model, first_lesson(model, tmp_path), chosen.train)
    state = dict(learned.state)
    name = next(key for key in state if key.startswith("mean/"))
    for at, (changed, message) in enumerate(
        (
            ({key: one for key, one in state.items() if key != name}, "expected tensors"),
            (state | {name: state[name][:1]}, rf"expected {name} as \(.*found \(1, "),
            (state | {name: state[name].double()}, "torch.float64; a line keeps"),
            (state | {name: state[name] * torch.nan}, "holds NaN or infinity"),
        )
    ):
        parts = Learned(learned.kind, learned.settings, learned.weights, learned.rows, changed)
        door = adapter_door(tmp_path / str(at), parts, model, chosen)
        with pytest.raises(DoesNotFit, match=message):
            method_of(chosen).begin(load_base(str(tiny_base)), second_lesson(door))


def test_several_processes_would_each_keep_another_state(tiny_base: Path, tmp_path: Path) -> None:
    chosen, model = spec_of(NAME), load_base(str(tiny_base))
    train = replaced(chosen.train, processes=2)
    with pytest.raises(BadSpec, match=r"train\.processes: expected 1 with method 'steady'"):
        fit(method_of(chosen), model, first_lesson(model, tmp_path), train)
