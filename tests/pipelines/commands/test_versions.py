"""Commands about one version: which one they take, how often they ask, when the alias moves."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import l2dm.releases.load
import l2dm.steps
from components.runtime import line_report
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.tracking.registry import FolderRegistry, VersionFacts
from l2dm import doors
from l2dm.errors import DoesNotFit
from l2dm.evaluation.matrix import FreshRow
from l2dm.files import manifest
from pipelines.commands.cli import app
from pipelines.commands.lines.status import status_of
from pipelines.commands.target import Target
from pipelines.commands.versions.evaluate import evaluate_champion
from pipelines.commands.versions.rollback import make_champion

OPEN = doors.Verdict(open=True, reasons=())
RELEASE = doors.Release("pets", "t0001", None, 0, "", "", "", OPEN)
BEGUN = {"parent_version": 0, "upload": "u"}


class Asked:
    """A line of two versions, the second its champion, and how often its registry was opened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target, self.opened = Target(folder / "home", "pets", "pocket"), 0
        self.records = Records(self.target.home.store, "pets")
        self.registry = FolderRegistry(folder / "registry")
        manifest.write(folder / "release", RELEASE, lambda _: None)
        for number, name in enumerate(("rex", "mimi"), start=1):
            facts = VersionFacts(f"t000{number}", name, "dog", number - 1, f"digest-{name}", True)
            self.registry.register("pets", folder / "release", facts)
            self.records.append("promotion", source=number - 1, target=number)
        self.registry.set_alias("pets", "previous", 1)
        self.registry.set_alias("pets", "champion", 2)
        monkeypatch.setattr(Target, "registry", lambda target: self._open())

    def _open(self) -> FolderRegistry:
        self.opened += 1
        return self.registry


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tmp_path, monkeypatch)


def test_a_fetched_version_tells_its_number_and_goes_when_it_is_left(asked: Asked) -> None:
    with asked.target.fetched("previous") as (number, release):
        assert (number, release.is_dir()) == (1, True)
    assert not release.exists()


def test_the_champion_is_looked_up_once(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = list[Any]()

    def evaluate(release: Path, context: Any, *, seed: int) -> FreshRow:
        contexts.append(context)
        shutil.rmtree(release)  # it is a copy
        return FreshRow({}, ())

    monkeypatch.setattr(l2dm.steps, "evaluate_release", evaluate)
    found = evaluate_champion(asked.target, 7)
    assert (found["version"], found["seed"]) == (2, 7)
    assert [context.parent_version for context in contexts] == [2]
    assert asked.opened == 1


def test_a_version_is_loaded_once_before_it_is_the_champion_again(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[str]()

    def load(release: Path, base: str) -> None:
        assert asked.registry.aliases("pets")["champion"] == 2
        loaded.append(base)

    monkeypatch.setattr(l2dm.releases.load, "load_release", load)
    assert make_champion(asked.target, "previous") == (2, 1)
    assert loaded == ["pocket"]
    assert asked.registry.aliases("pets")["champion"] == 1


def test_after_a_rollback_everybody_tells_of_the_same_champion(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, the page and the registry: what the champion knows, and what not any more."""
    home, given = asked.target.home, list[Any]()
    for number, name in enumerate(("rex", "mimi"), start=1):
        asked.records.append("begun", concept=name, class_noun="dog", task=f"t000{number}", **BEGUN)
        asked.records.end(ConceptState(name, "dog", "promoted", number, task=f"t000{number}"))
    monkeypatch.setattr(l2dm.releases.load, "load_release", lambda release, base: None)
    monkeypatch.setattr(line_report, "_text", lambda *told: given.append(told) or "<p>now</p>")
    make_champion(asked.target, "1")
    (line,) = status_of(home, "pets", refresh=False)
    assert {one["name"]: one["known"] for one in line["concepts"]} == {"rex": True, "mimi": False}
    assert home.store.read(home.report("pets")).data == b"<p>now</p>"
    told = json.loads((asked.registry.folder / "pets" / "told.json").read_text())
    assert told["states"] == {"1": "promoted", "2": "taken back"}
    assert "version 1" in told["text"] and "not known any more: mimi (version 2)" in told["text"]
    make_champion(asked.target, "2")
    (line,) = status_of(home, "pets", refresh=False)
    assert all(one["known"] for one in line["concepts"])
    shown = CliRunner().invoke(app, ["status", "--home", str(home.folder)]).stdout
    assert "not any more" not in shown and "taken back" not in shown


def test_status_names_what_a_rollback_took_and_the_way_back(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.records.append("begun", concept="mimi", class_noun="cat", task="t0002", **BEGUN)
    asked.records.end(ConceptState("mimi", "cat", "promoted", 2, task="t0002"))
    monkeypatch.setattr(l2dm.releases.load, "load_release", lambda release, base: None)
    make_champion(asked.target, "previous")
    runner = CliRunner(env={"COLUMNS": "300"})
    shown = runner.invoke(app, ["status", "--home", str(asked.target.home.folder)]).stdout
    assert "not any more" in shown and "l2dm rollback --line pets --to 2" in shown


def test_a_report_that_cannot_be_written_stops_no_rollback(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The releases of this line are empty folders: no page can be made of them."""
    monkeypatch.setattr(l2dm.releases.load, "load_release", lambda release, base: None)
    assert make_champion(asked.target, "previous") == (2, 1)


def test_a_disk_that_takes_no_report_stops_no_rollback(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(l2dm.releases.load, "load_release", lambda release, base: None)
    monkeypatch.setattr(line_report, "_text", full)
    assert make_champion(asked.target, "previous") == (2, 1)
    assert "its report is of before: No space left on device" in caplog.text


def test_a_version_that_cannot_be_loaded_does_not_become_the_champion(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(release: Path, base: str) -> None:
        raise DoesNotFit("other shapes")

    monkeypatch.setattr(l2dm.releases.load, "load_release", load)
    with pytest.raises(DoesNotFit):
        make_champion(asked.target, "previous")
    assert asked.registry.aliases("pets")["champion"] == 2
    assert asked.records.state().standing.champion == 2
