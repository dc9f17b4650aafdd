"""Settings applied to pipelines: golden YAML and platform part, any number of tasks."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from components.image import IMAGE
from l2dm.errors import BadSettings
from pipelines.places import compilation
from pipelines.places.compilation import compile_pipeline, compile_pipelines
from pipelines.places.placement import base_problems, placed
from pipelines.places.settings import Settings, load, parse

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = Path(__file__).parents[3] / "docs" / "l2dm.toml"


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def count_up(n: int) -> int:
    return n + 1


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def tell(n: int) -> None:
    print(n)


@dsl.pipeline(name="inner")
def inner(n: int) -> int:
    return count_up(n=n).output


@dsl.pipeline(name="spread-out", description="Tasks in a loop, twice the same component.")
def spread_out(numbers: list[int]) -> None:
    first = count_up(n=1)
    with dsl.ParallelFor(items=numbers) as n:
        count_up(n=n)
    tell(n=first.output).set_caching_options(False)


@dsl.pipeline(name="nested")
def nested() -> None:
    inner(n=2)


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    first, *more = yaml.safe_load_all(path.read_text())
    return first, more[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if more else {}


def spread(settings: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = placed({"spread_out": spread_out}, parse(settings))
    (path,) = compilation._write(found, folder)
    return documents(path)


def test_the_example_compiles_to_the_golden_yaml_and_platform_part(tmp_path: Path) -> None:
    """After a wanted change: `l2dm compile --config docs/l2dm.toml --out` this golden's folder."""
    paths = compile_pipelines(tmp_path, load(EXAMPLE))
    golden = GOLDEN / "placed"
    assert {path.name for path in paths} == {path.name for path in golden.iterdir()}
    for path in paths:
        assert path.read_text() == (golden / path.name).read_text()


def test_settings_that_say_nothing_change_no_byte(tmp_path: Path) -> None:
    path = compile_pipeline("learn_concept", tmp_path, Settings())
    assert path.read_text() == (GOLDEN / "learn_concept.yaml").read_text()


def test_the_golden_pipeline_has_what_the_example_says() -> None:
    spec, pods = documents(GOLDEN / "placed" / "learn_concept.yaml")
    executors = spec["deploymentSpec"]["executors"]
    containers = {name: executor["container"] for name, executor in executors.items()}
    image = load(EXAMPLE).image
    assert {container["image"] for container in containers.values()} == {image}
    train = containers["exec-train"]["resources"]
    assert train["accelerator"]["resourceCount"] == "2"
    assert "accelerator" not in containers["exec-promote"]["resources"]
    assert pods["exec-train"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert pods["exec-train"]["activeDeadlineSeconds"] == "14400"
    assert pods["exec-intake"]["activeDeadlineSeconds"] == "3600"
    for name, pod in pods.items():
        assert {mount["mountPath"] for mount in pod["pvcMount"]} == {"/bases", "/scratch"}, name
        assert {one["keyToEnv"][0]["envVar"] for one in pod["secretAsEnv"]} == {
            *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
        }
    variables = {one["name"]: one["value"] for one in containers["exec-train"]["env"]}
    assert variables["L2DM_SCRATCH"] == "/scratch"


def test_only_steps_that_compute_are_repeated_by_the_cluster() -> None:
    spec, _ = documents(GOLDEN / "placed" / "learn_concept.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    repeated = {name for name, task in tasks.items() if "retryPolicy" in task}
    assert repeated == {"generate-prior", "score-memory", "train", "evaluate"}


def test_tasks_are_placed_by_component_in_loops_too(tmp_path: Path) -> None:
    spec, pods = spread(
        {"steps": {"count_up": {"cpu_limit": "2", "timeout": 60, "retry": {"times": 1}}}}, tmp_path
    )
    executors = spec["deploymentSpec"]["executors"]
    limited = {name for name, one in executors.items() if "resources" in one["container"]}
    assert limited == {"exec-count-up", "exec-count-up-2"}
    assert set(pods) == limited
    (loop,) = (one for name, one in spec["components"].items() if "for-loop" in name)
    assert loop["dag"]["tasks"]["count-up-2"]["retryPolicy"]["maxRetryCount"] == 1


def test_description_and_inputs_of_a_placed_pipeline_stay(tmp_path: Path) -> None:
    spec, _ = spread({"defaults": {"cpu_limit": "1"}}, tmp_path)
    assert spec["pipelineInfo"]["name"] == "spread-out"
    assert spec["pipelineInfo"]["description"] == "Tasks in a loop, twice the same component."
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"numbers"}


def test_without_an_image_the_components_own_stays(tmp_path: Path) -> None:
    path = compile_pipeline("learn_concept", tmp_path, parse({"defaults": {"cpu_limit": "1"}}))
    executors = documents(path)[0]["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}


def test_a_step_that_no_pipeline_has_and_a_retry_that_cannot_be_are_told_at_once() -> None:
    settings = parse({"steps": {"tell": {"retry": {"times": 1}}, "count_upp": {}, "zzz": {}}})
    with pytest.raises(BadSettings) as caught:
        placed({"spread_out": spread_out}, settings)
    near, far, retry = caught.value.problems
    assert "l2dm.toml has no step 'count_upp'; nearest known step: count_up" in near
    assert "no step 'zzz'" in far and "['count_up', 'tell']" in far
    assert "steps.tell.retry: expected none, because this step acts on records" in retry


def test_a_pipeline_within_a_pipeline_is_refused_rather_than_left_out() -> None:
    with pytest.raises(BadSettings, match="found the pipeline 'inner' within a pipeline"):
        placed({"nested": nested}, Settings())


def test_a_retry_of_the_defaults_passes_over_steps_that_act(tmp_path: Path) -> None:
    spec, _ = spread({"defaults": {"retry": {"times": 1}}}, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    assert "retryPolicy" in tasks["count-up"]
    assert "retryPolicy" not in tasks["tell"]


@pytest.mark.parametrize(
    ("base", "fits"),
    [("pocket", True), ("org/name", True), ("/bases/sd15", True), ("/home/me/sd15", False)],
)
def test_a_base_that_pods_cannot_see_is_told(base: str, fits: bool) -> None:
    assert (list(base_problems(load(EXAMPLE), base)) == []) is fits
    assert (list(base_problems(Settings(), base)) == []) is (base in ("pocket", "org/name"))
