"""Commands about one version: which one they take, how often they ask, when the alias moves."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import l2dm.releases.load
import l2dm.steps
from components.services.line.records import Records
from components.services.tracking.registry import FolderRegistry, VersionFacts
from l2dm.errors import DoesNotFit
from l2dm.evaluation.matrix import FreshRow
from pipelines.commands.target import Target
from pipelines.commands.versions.evaluate import evaluate_champion
from pipelines.commands.versions.rollback import make_champion


class Asked:
    """A line of two versions, the second its champion, and how often its registry was opened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target, self.opened = Target(folder / "home", "pets", "pocket"), 0
        self.records = Records(self.target.home.store, "pets")
        self.registry = FolderRegistry(folder / "registry")
        (folder / "release").mkdir()
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
