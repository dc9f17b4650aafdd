"""What is compiled is golden, and a wrong wiring does not compile."""

from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl
from kfp.dsl.types.type_utils import InconsistentTypeException

from components.artifacts import Memory, Prior
from components.generate_prior import generate_prior
from components.intake import intake
from components.score_memory import score_memory
from components.train import train
from pipelines.places.compilation import PIPELINES, STEPS, compile_pipelines

GOLDEN = Path(__file__).parent / "golden" / "learn_concept.yaml"


def test_the_compiled_pipelines_are_the_golden_ones(tmp_path: Path) -> None:
    """After a wanted change: `l2dm compile --out tests/pipelines/golden`."""
    first, again = (compile_pipelines(tmp_path / name) for name in ("one", "two"))
    assert [path.stem for path in first] == list(PIPELINES)
    for one, other in zip(first, again, strict=True):
        assert one.read_text() == other.read_text()
        assert one.read_text() == GOLDEN.with_name(one.name).read_text()


def test_a_check_is_never_cached() -> None:
    text = GOLDEN.with_name("check_forgetting.yaml").read_text()
    (task,) = yaml.safe_load(text)["root"]["dag"]["tasks"].values()
    assert not task["cachingOptions"].get("enableCache")


def test_a_long_line_has_the_six_steps_and_two_loops_of_shards() -> None:
    found = yaml.safe_load(GOLDEN.with_name("learn_concept_wide.yaml").read_text())
    tasks = found["root"]["dag"]["tasks"]
    loops = {name: task["parameterIterator"] for name, task in tasks.items() if "for-loop" in name}
    assert {name.replace("-", "_") for name in tasks.keys() - loops.keys()} == set(STEPS)
    shards = [loop["items"]["inputParameter"] for loop in loops.values()]
    assert sorted(name.rpartition("--")[2] for name in shards) == [
        "evaluate_shards",
        "memory_shards",
    ]
    inside = {
        task for name in loops for task in found["components"][f"comp-{name}"]["dag"]["tasks"]
    }
    assert inside == {"draw-memory", "draw-evaluation"}
    for step, loop in (("score-memory", "draw-memory"), ("evaluate", "draw-evaluation")):
        drawn = tasks[step]["inputs"]["artifacts"]["drawn"]["taskOutputArtifact"]
        producer = found["components"][f"comp-{drawn['producerTask']}"]["dag"]["tasks"]
        assert set(producer) == {loop}


def test_the_pipeline_has_six_steps_and_those_that_move_aliases_are_never_cached() -> None:
    text = GOLDEN.read_text()
    tasks = yaml.safe_load(text)["root"]["dag"]["tasks"]
    assert {name.replace("-", "_") for name in tasks} == set(STEPS)
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {"generate-prior", "score-memory", "train", "evaluate"}


@pytest.mark.parametrize(("prior", "memory"), [("memory", "memory"), ("prior", "prior")])
def test_a_wrong_artifact_does_not_compile(prior: str, memory: str, tmp_path: Path) -> None:
    settings = {"base": "pocket", "spec": "{}", "home": "home"}

    def crossed() -> None:
        begun = intake(line="pets", upload="rex", **settings)
        known = {"task": begun.outputs["task"], "parent": begun.outputs["parent"], **settings}
        made = {
            "prior": generate_prior(**known).outputs["prior"],
            "memory": score_memory(**known).outputs["memory"],
        }
        train(prior=made[prior], memory=made[memory], fence=1, **known)

    with pytest.raises(InconsistentTypeException, match="Incompatible argument passed"):
        compiler.Compiler().compile(dsl.pipeline(name="crossed")(crossed), str(tmp_path / "x.yaml"))


def test_artifact_types_differ() -> None:
    assert Prior.schema_title != Memory.schema_title
