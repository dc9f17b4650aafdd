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


def files_of(home: Home, version: int) -> Path:
    """Where the release of a version of pets lies."""
    client = MlflowRegistry(home, "pocket", MODEL_CODE)._client
    model = client.get_model_version("l2dm.pets", str(version)).source.rpartition("/")[2]
    (release,) = (home.artifacts / "pets" / "models" / model).rglob("release")
    return release


def flip(path: Path) -> None:
    """One bit of a file is another one."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


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


@pytest.fixture
def damaged(learned: Home) -> Home:
    """Pets, with one bit of its champion's adapter flipped."""
    flip(files_of(learned, 2) / "adapter" / "manifest.json")
    return learned


def test_a_damaged_champion_is_told_with_its_files_and_the_last_whole_version(
    damaged: Home, tiny_base: Path
) -> None:
    result = run(damaged)
    assert (result.exit_code, champion(damaged)) == (1, 2)
    assert "version 2 of line 'pets' is not what was written" in result.stderr
    assert "changed ['adapter/manifest.json']" in result.stderr
    assert "version 1 is whole: `l2dm rollback --line pets --to 1`" in result.stderr
    assert "/tmp" not in result.stderr
    words = ["rollback", "--home", str(damaged.folder), "--line", "pets", "--to", "1"]
    back = CliRunner().invoke(app, [*words, "--base", str(tiny_base)])
    assert (back.exit_code, champion(damaged)) == (0, 1), back.output
    assert run(damaged).exit_code == 0
    again = CliRunner().invoke(app, [*words[:-1], "2", "--base", str(tiny_base)])
    assert (again.exit_code, champion(damaged)) == (1, 1)
    assert "version 2 of line 'pets' is not what was written" in again.stderr


def test_who_goes_back_to_a_version_whose_files_are_gone_is_told_the_way_out(
    learned: Home, tmp_path: Path, tiny_base: Path
) -> None:
    files_of(learned, 1).rename(tmp_path / "away")
    words = ["rollback", "--home", str(learned.folder), "--line", "pets", "--to", "1"]
    result = CliRunner().invoke(app, [*words, "--base", str(tiny_base)])
    assert (result.exit_code, champion(learned)) == (1, 2)
    assert "expected files of version 1 of line 'pets'" in result.stderr
    assert "name another one with --to, see `l2dm status`" in result.stderr


def test_no_version_is_offered_that_is_damaged_too(damaged: Home) -> None:
    (files_of(damaged, 1) / "adapter" / "manifest.json").unlink()
    result = run(damaged, "--json")
    assert result.exit_code == 1
    (why,) = json.loads(result.stdout)["failed"].values()
    assert why.endswith("no former champion is whole, so bring its files back from a backup")


@pytest.mark.parametrize(
    "words", [("generate", "a photo of <rex> dog", "--out"), ("export", "--out")]
)
@pytest.mark.parametrize("harm", ["flipped", "lost", "gone"])
def test_who_draws_or_exports_a_damaged_champion_is_told_the_way_out(
    learned: Home, tmp_path: Path, tiny_base: Path, words: tuple[str, ...], harm: str
) -> None:
    release = files_of(learned, 2)
    if harm == "flipped":
        flip(release / "scores" / "manifest.json")
    elif harm == "lost":
        (release / "scores" / "manifest.json").unlink()
    else:
        release.rename(tmp_path / "away")
    where = ["--line", "pets", "--home", str(learned.folder), "--base", str(tiny_base)]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "out"), *where])
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    said = result.stderr
    assert "version 2 of line 'pets'" in said and "run the step that writes it" not in said
    assert "l2dm repair --line pets" in said and "l2dm rollback --line pets" in said
    if harm != "gone":
        assert "scores/manifest.json" in said
        assert "/tmp" not in said
