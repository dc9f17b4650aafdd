"""`l2dm repair` as people meet it: it asks, leaves alone what is out of reach, and takes back."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.services.line.ledger import ConceptState
from components.services.line.promotion import settle
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from l2dm import doors
from l2dm.files import manifest
from l2dm.steps import empty_release
from pipelines.commands.cli import app

MODEL_CODE = Path(__file__).parents[2] / "worlds" / "echo_model.py"


def run(home: Home, *words: str) -> Result:
    return CliRunner().invoke(app, ["repair", "--home", str(home.folder), *words])


@pytest.fixture
def learned(home: Home, tmp_path: Path, tiny_base: Path) -> Home:
    """Line pets with two champions, in a folder of its own."""
    (tmp_path / "first").mkdir()
    shutil.move(home.database, tmp_path / "first" / "mlflow.db")
    there = Home.at(tmp_path / "first")
    release = empty_release(tmp_path / "release", "pets", str(tiny_base)).folder
    digest = manifest.read(release, doors.Release).digest
    registry, records = MlflowRegistry(there, "pocket", MODEL_CODE), Records(there.store, "pets")
    for parent, name in enumerate(("rex", "mimi")):
        task = f"t000{parent + 1}"
        begun = {"task": task, "parent_version": parent, "upload": f"sha of {name}"}
        records.append("begun", concept=name, class_noun="dog", **begun)
        facts = VersionFacts(task, name, "dog", parent, digest, True)
        version = registry.register("pets", release, facts)
        settle(registry, records, "pets", version)
        upload = begun["upload"]
        records.end(ConceptState(name, "dog", "promoted", version, task=task, upload=str(upload)))
    return there


def champion(home: Home) -> int:
    return Records(home.store, "pets").state().standing.champion


def moved(home: Home) -> Home:
    """As it is after a move: what this process has open of the old one counts no more."""
    to = home.folder.with_name("second")
    os.rename(home.folder, to)
    return Home.at(to)


def test_what_is_gone_is_dropped_when_somebody_says_so_and_taken_back(
    learned: Home, tmp_path: Path
) -> None:
    registry = MlflowRegistry(learned, "pocket", MODEL_CODE)
    model = registry._client.get_model_version("l2dm.pets", "2").source.rpartition("/")[2]
    files = learned.artifacts / "pets" / "models" / model
    files.rename(tmp_path / "away")
    result = run(learned)
    assert result.exit_code == 1 and champion(learned) == 2
    assert "pets: this would be dropped: versions that the registry does not" in result.stderr
    assert "--yes" in result.stderr and "left as it is" in result.stderr
    result = run(learned, "--yes", "--json")
    assert result.exit_code == 0 and champion(learned) == 1
    assert "[2]" in json.loads(result.stdout)["lines"]["pets"]
    (tmp_path / "away").rename(files)
    result = run(learned, "--line", "pets", "--undo")
    assert (result.exit_code, champion(learned)) == (0, 2)
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}
    assert "records and registry agree" in run(learned).stdout


def test_a_disk_that_is_not_mounted_costs_nothing(learned: Home, tmp_path: Path) -> None:
    learned.artifacts.rename(tmp_path / "away")
    result = run(learned, "--yes")
    assert result.exit_code == 1 and champion(learned) == 2
    assert "mount the disk" in result.stderr


@pytest.mark.parametrize("named", [(), ("--line", "pets")])
def test_a_deleted_database_is_made_again_from_the_files(
    learned: Home, named: tuple[str, ...]
) -> None:
    there = moved(learned)
    there.database.unlink()
    result = run(there, *named)
    assert (result.exit_code, champion(there)) == (0, 2), result.output
    registry = MlflowRegistry(there, "pocket", MODEL_CODE)
    assert [one.facts.concept for one in registry.versions("pets")] == ["rex", "mimi"]
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}


def test_without_files_and_database_no_champion_is_dropped_unless_the_line_is_named(
    learned: Home, template: Path
) -> None:
    there = moved(learned)
    shutil.rmtree(there.artifacts)
    shutil.copy(template, there.database)
    result = run(there, "--yes")
    assert result.exit_code == 1 and champion(there) == 2
    assert "this may be another database" in result.stderr
    result = run(there, "--yes", "--line", "pets")
    assert result.exit_code == 0 and champion(there) == 0
