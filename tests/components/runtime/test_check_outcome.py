"""What follows from a check: which version is gone back to, what is recorded, in which order."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.runtime import check_outcome
from components.runtime.check_outcome import ChampionCheck, told
from components.runtime.step import checks_of
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, VersionFacts
from components.services.tracking.runs import MemoryTracking
from l2dm import doors
from l2dm.errors import BadDoor, FilesGone
from l2dm.files import manifest
from l2dm.spec import Spec, override

Finds = Callable[[int], tuple[str, str]]


class Bench:
    """A line of three champions; `finds(version)` says what a check of it finds, or raises."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.registry = Home.at(folder / "home"), FolderRegistry(folder / "registry")
        self.folder, self.finds = folder, lambda version: ("healthy", "")
        self.records = Records(self.home.store, "pets")
        for version in (1, 2, 3):
            release = folder / f"release-{version}"
            release.mkdir()
            (release / "number").write_text(str(version))
            facts = VersionFacts(f"t{version:04d}", f"c{version}", "dog", version - 1, "d", True)
            self.registry.register("pets", release, facts)
            self.promote(version - 1, version)
        monkeypatch.setattr(check_outcome, "MlflowRegistry", lambda *given: self.registry)
        monkeypatch.setattr(check_outcome, "write_report", lambda *given: None)
        monkeypatch.setattr(ChampionCheck, "_load", lambda self, version, release: None)

    def promote(self, source: int, target: int) -> None:
        task = f"t{target:04d}"
        self.records.append("promotion", line="pets", task=task, source=source, target=target)

    def check(self, *settings: str, seed: int = 7) -> str:
        step = SimpleNamespace(
            subject=checks_of("pets"),
            home=self.home,
            settings=SimpleNamespace(base="pocket"),
            spec=override(Spec(), settings),
            context_for=lambda task, version: version,
            run=lambda function, *given, **options: function(*given, **options),
            on_progress=None,
            tell=lambda values: None,
            measure=lambda values, at: None,
            tracking=MemoryTracking(),
        )
        champion = ChampionCheck(step, self.found, seed)  # type: ignore[arg-type]
        door, version = champion.check(str(self.folder / "checked"))
        champion.conclude(door, version, "report", str(self.folder / "summary"))
        return (self.folder / "summary").read_text()

    def found(self, release: Path, out: Path, *given: Any, **options: Any) -> Any:
        version = int((release / "number").read_text())
        health, cause = self.finds(version)
        reasons = (f"{version} is {health}",)
        record = doors.Check("base", "t", options["seed"], health, cause, 0.0, (), reasons)
        return manifest.write(out, record, lambda draft: (draft / "sheets").mkdir())

    def events(self) -> list[tuple[str, int]]:
        """Kind and version of what was recorded after the three promotions."""
        found = self.records.events()[3:]
        return [(one.kind, one.facts.get("version") or one.facts["target"]) for one in found]

    @property
    def champion(self) -> int:
        return self.records.state().standing.champion


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


ROLL_BACK = "check.policy=roll_back"
LOST = ("regressed", "model")


def test_the_first_healthy_one_of_those_before_it_is_champion_again(bench: Bench) -> None:
    bench.finds = lambda version: LOST if version > 1 else ("healthy", "")
    summary = bench.check(ROLL_BACK)
    # what the champion was found to be comes last: until then the run has not ended
    assert bench.events() == [("checked", 2), ("checked", 1), ("rollback", 1), ("checked", 3)]
    assert bench.records.events()[5].facts["reasons"] == ["3 is regressed"]
    assert "Version 1 is the champion again; it does not know c3, c2" in summary
    assert bench.records.state().checks.answered[-1] == 7


def test_a_former_champion_whose_files_are_gone_is_passed_over(bench: Bench) -> None:
    bench.finds = lambda version: LOST if version > 2 else ("healthy", "")
    shutil.rmtree(bench.registry.folder / "pets" / "2" / "release")
    bench.check(ROLL_BACK)
    assert bench.champion == 1
    assert bench.events() == [("checked", 1), ("rollback", 1), ("checked", 3)]


def test_a_champion_whose_files_are_gone_is_told_with_the_way_out(bench: Bench) -> None:
    shutil.rmtree(bench.registry.folder / "pets" / "3" / "release")
    with pytest.raises(FilesGone, match=r"version 3 of line 'pets'.* `l2dm rollback --line pets"):
        bench.check()


def test_what_was_healthy_long_ago_is_checked_again(bench: Bench) -> None:
    facts = {"seed": 1, "health": "healthy", "cause": "", "digest": "d", "reasons": []}
    bench.records.append("checked", line="pets", version=2, scores={}, drops={}, **facts)
    bench.finds = lambda version: LOST if version > 1 else ("healthy", "")
    bench.check(ROLL_BACK)
    assert bench.champion == 1


def test_a_step_that_is_tried_again_checks_nothing_twice(bench: Bench) -> None:
    looked = list[int]()

    def finds(version: int) -> tuple[str, str]:
        looked.append(version)
        if looked.count(3) == 1 and version == 1:
            raise KeyboardInterrupt  # the pod is evicted
        return LOST if version > 1 else ("healthy", "")

    bench.finds = finds
    with pytest.raises(KeyboardInterrupt):
        bench.check(ROLL_BACK)
    bench.check(ROLL_BACK)
    assert looked == [3, 2, 1, 3, 1]
    assert bench.champion == 1


def test_what_cannot_be_checked_is_passed_over(bench: Bench) -> None:
    def finds(version: int) -> tuple[str, str]:
        if version == 2:
            raise BadDoor("torn")
        return LOST if version == 3 else ("healthy", "")

    bench.finds = finds
    bench.check(ROLL_BACK)
    assert bench.events() == [("checked", 1), ("rollback", 1), ("checked", 3)]


def test_a_version_that_a_rollback_left_is_not_gone_back_to(bench: Bench) -> None:
    """1, 2, 3 in a row; back to 2: a regression of 2 leads to 1, not to 3."""
    bench.records.append("rollback", line="pets", source=3, target=2)
    bench.finds = lambda version: LOST if version == 2 else ("healthy", "")
    bench.check(ROLL_BACK)
    assert bench.champion == 1


@pytest.mark.parametrize(
    ("found", "settings"),
    [
        (LOST, ()),  # only tell
        (("regressed", "environment"), (ROLL_BACK,)),  # it would follow the line everywhere
        (("regressed", "base"), (ROLL_BACK,)),
        (("inconclusive", "model"), (ROLL_BACK,)),
        (("healthy", ""), (ROLL_BACK,)),
    ],
)
def test_the_champion_stays(
    bench: Bench, found: tuple[str, str], settings: tuple[str, ...]
) -> None:
    bench.finds = lambda version: found
    bench.check(*settings)
    assert (bench.events(), bench.champion) == ([("checked", 3)], 3)


def test_none_is_healthy(bench: Bench) -> None:
    bench.finds = lambda version: LOST
    bench.check(ROLL_BACK)
    assert bench.champion == 3
    assert bench.events()[-1] == ("checked", 3)


def test_a_champion_that_came_meanwhile_is_left_alone(bench: Bench) -> None:
    def finds(version: int) -> tuple[str, str]:
        if version == 2:
            bench.promote(3, 1)
        return LOST if version == 3 else ("healthy", "")

    bench.finds = finds
    summary = bench.check(ROLL_BACK)
    assert bench.champion == 1
    assert "rollback" not in [kind for kind, _ in bench.events()]
    assert "champion again" not in summary


def test_the_same_check_again_is_one_event_and_another_finding_is_another(bench: Bench) -> None:
    bench.check()
    bench.check()
    assert bench.events() == [("checked", 3)]
    bench.finds = lambda version: LOST
    bench.check()
    assert bench.events() == [("checked", 3)] * 2
    assert bench.records.state().checks.found[3].health == "regressed"


def test_words_of_a_summary_are_no_markup() -> None:
    check = doors.Check("b", "t", 1, "regressed", "model", 0.0, (), ("<rex> is lost",))
    assert "&lt;rex&gt; is lost" in told(check, 3, None)
