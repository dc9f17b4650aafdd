"""`l2dm settings` and `--method`: every key with default, range and meaning, read off its page."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from l2dm.methods import registry
from l2dm.spec import Spec, override, resolved
from pipelines.commands.cli import app

EXAMPLE = Path(__file__).parents[3] / "docs" / "l2dm.toml"


def run(*words: str) -> Any:
    return CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = run("settings", "--json")
    assert done.exit_code == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def leaves(data: dict[str, Any], at: str = "") -> list[str]:
    found = []
    for key, value in data.items():
        found += leaves(value, f"{at}{key}.") if isinstance(value, dict) else [f"{at}{key}"]
    return found


def test_every_key_of_the_spec_and_of_every_method_is_told(told: dict[str, Any]) -> None:
    keys = [one["key"] for one in told["spec"]["settings"]]
    assert len(keys) == len(set(keys))
    expected = set()
    for method in registry.names():
        expected |= set(leaves(resolved(override(Spec(), [f"train.method={method}"]))))
    assert set(keys) == expected
    assert all(one["meaning"] and one["range"] for one in told["spec"]["settings"])


def test_a_default_that_is_told_is_taken_back(told: dict[str, Any]) -> None:
    for one in told["spec"]["settings"]:
        method = one["key"].split(".")[0]
        chosen = [f"train.method={method}"] if method in registry.names() else []
        setting = f"{one['key']}={json.dumps(one['default'])}"
        assert override(Spec(), [*chosen, setting]) == override(Spec(), chosen)


def test_every_key_of_the_example_is_told(told: dict[str, Any]) -> None:
    keys = {one["key"] for one in told["l2dm.toml"]["settings"]}
    data = tomllib.loads(EXAMPLE.read_text())
    free = ("environment.", "secrets.", "steps.", "defaults.environment.")
    assert {key for key in leaves(data) if not key.startswith(free)} <= keys
    assert {"steps", "secrets", "environment", "defaults.tolerations[].effect"} <= keys
    assert all(one["meaning"] and one["range"] for one in told["l2dm.toml"]["settings"])


def test_ranges_are_those_that_are_refused(told: dict[str, Any]) -> None:
    ranges = {one["key"]: one["range"] for part in told.values() for one in part["settings"]}
    assert ranges["train.steps"] == "int, at least 1"
    assert ranges["train.method"] == f"one of {', '.join(map(repr, registry.names()))}"
    assert ranges["defaults.cpu_limit"] == 'an amount like "4" or "500m"'
    assert ranges["defaults.retry.times"] == "int, a number from 0 to 10"


def test_the_schemas_are_for_forms(told: dict[str, Any]) -> None:
    spec, places = (told[name]["schema"] for name in ("spec", "l2dm.toml"))
    assert set(registry.names()) < set(spec["properties"])
    train = spec["$defs"]["TrainSpec"]["properties"]
    assert (train["steps"]["minimum"], train["steps"]["default"]) == (1, 200)
    assert train["method"]["enum"] == list(registry.names())
    assert places["$defs"]["Retry"]["properties"]["times"]["maximum"] == 10
    assert "Ki" in str(places["$defs"]["StepSettings"]["properties"]["shm"])
    assert spec["additionalProperties"] is places["additionalProperties"] is False


def test_people_read_one_line_a_key() -> None:
    lines = run("settings").stdout.splitlines()
    (steps,) = [line for line in lines if line.startswith("  train.steps ")]
    assert steps.split(maxsplit=2) == ["train.steps", "200", steps.split(maxsplit=2)[2]]
    assert "int, at least 1" in steps and steps.endswith("optimizer steps")
    (host,) = [line for line in lines if line.startswith("  cluster.host ")]
    assert "http(s)://..." in host


def test_the_methods_are_told_where_one_is_chosen(tmp_path: Path) -> None:
    words = run("learn", "--help").stdout.split()
    for name in registry.names():
        told = [name, *registry.page(name).summary.split()]
        assert told in [words[at : at + len(told)] for at in range(len(words))]
    wrong = run("learn", "--line", "pets", "--method", "gatd", "--home", str(tmp_path / "home"))
    assert wrong.exit_code == 2
    for expected in ("train.method: expected one of", "'gated'", "found 'gatd'"):
        assert expected in wrong.stderr


def test_a_key_without_its_section_names_that_of_training_first(tmp_path: Path) -> None:
    done = run("learn", "--line", "pets", "--set", "steps=3", "--home", str(tmp_path / "home"))
    assert done.exit_code == 2
    assert "spec has no key 'steps'; nearest known key: train.steps" in done.stderr


def test_an_option_of_another_method_is_refused_by_name(tmp_path: Path) -> None:
    words = ("learn", "--line", "pets", "--home", str(tmp_path / "home"), "--method", "gated")
    done = run(*words, "--set", "l2dm.replay=0.5")
    assert done.exit_code == 2
    assert "l2dm.replay: expected an option of the chosen method 'gated'" in done.stderr
