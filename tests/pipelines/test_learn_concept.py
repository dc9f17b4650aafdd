"""What is compiled is golden, and a wrong wiring does not compile."""

from pathlib import Path

import pytest
from kfp import compiler, dsl
from kfp.dsl.types.type_utils import InconsistentTypeException

from components.artifacts import Memory, Prior
from components.generate_prior import generate_prior
from components.intake import intake
from components.score_memory import score_memory
from components.train import train
from pipelines.compilation import compile_pipeline
from pipelines.submit import STEPS

GOLDEN = Path(__file__).parent / "golden" / "learn_concept.yaml"


def test_the_compiled_pipeline_is_the_golden_one(tmp_path: Path) -> None:
    """After a wanted change: `l2dm compile --out tests/pipelines/golden`."""
    first, again = (
        compile_pipeline("learn_concept", tmp_path / name).read_text() for name in ("one", "two")
    )
    assert first == again
    assert first == GOLDEN.read_text()


def test_the_pipeline_has_six_steps_and_those_that_move_aliases_are_never_cached() -> None:
    text = GOLDEN.read_text()
    import yaml

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
