"""A concept is taken out of a line on the way of a promotion: records first, aliases after."""

import errno
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.runtime.forgetting import forget
from components.services.line import snapshots, status_cache
from components.services.line.leases import Leases
from components.services.line.ledger import Forgetting
from components.services.line.promotion import roll_back
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, Registry
from l2dm.errors import L2dmError, LineBusy, LostLease, TrackingFailed, UnknownLine
from l2dm.releases.without import known
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from pipelines.dispatcher.repair import mend
from pipelines.places.run_here import known_concepts
from tests.worlds.taught_line import Cut, Killed, TaughtLine


@pytest.fixture
def line(tmp_path: Path) -> TaughtLine:
    return TaughtLine(tmp_path)


def take_out(line: TaughtLine, cut: Cut, name: str = "quixby") -> None:
    home, registry = line.cut(cut)
    leases = Leases(home.store)
    with leases.held("pets") as keeper:
        fence = keeper.lease("pets").fence
        forget(home, registry, "pets", name, "it was sold", lambda: leases.check("pets", fence))


def champion_knows(line: TaughtLine, folder: Path) -> tuple[str, ...]:
    champion = line.records.state().standing.champion
    return known(line.registry.fetch("pets", champion, folder / "champion"))


def test_the_champion_is_a_version_without_it_and_the_former_one_stays(
    line: TaughtLine, tmp_path: Path
) -> None:
    take_out(line, Cut())
    assert champion_knows(line, tmp_path) == ("ada", "bolt")
    assert line.registry.aliases("pets") == {"champion": 4, "previous": 3}
    ledger = line.records.state()
    assert (ledger.versions[4], ledger.tasks, known_concepts(ledger)) == ("t0004", 4, 2)
    state = ledger.concepts["quixby"]
    assert (state.state, ledger.forgetting, ledger.active) == ("forgotten", None, None)
    assert "it was sold" in state.reasons[0] and "version 4" in state.reasons[0]
    assert ledger.recipe is not None and ledger.recipe.method == "gated"
    event = line.records.events()[-1]
    assert (event.kind, event.facts["forgets"], event.facts["reason"]) == (
        "forgotten", "quixby", "it was sold",
    )  # fmt: skip
    index = status_cache.read(line.home, "pets", lambda: line.registry)
    assert index.known() == {"ada": 1, "bolt": 3}
    assert "quixby" not in status_cache.taken(line.home, "pets", index)
    assert mend(line.home, lambda: line.registry, line.records, "pets") is False


def test_a_rollback_brings_it_back_and_it_can_be_taken_out_again(
    line: TaughtLine, tmp_path: Path
) -> None:
    take_out(line, Cut())
    roll_back(line.registry, line.records, "pets", 3, lambda *_: None, tmp_path / "scratch")
    assert "quixby" in champion_knows(line, tmp_path)
    take_out(line, Cut())
    assert line.records.state().standing.champion == 5
    take_out(line, Cut(), "ada")
    assert champion_knows(line, tmp_path) == ("bolt",)
    take_out(line, Cut(), "bolt")
    assert champion_knows(line, tmp_path) == ()
    with pytest.raises(UnknownLine, match="found 'tom'"):
        take_out(line, Cut(), "tom")


def actions(folder: Path) -> int:
    cut = Cut()
    take_out(TaughtLine(folder), cut)
    return cut.count


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_action_it_leaves_the_old_or_the_new_and_a_repeat_ends_it(
    tmp_path: Path, after: bool
) -> None:
    count = actions(tmp_path / "whole")
    assert count >= 8
    for at in range(1, count + 1):
        folder = tmp_path / str(at)
        line = TaughtLine(folder)
        with pytest.raises(Killed):
            take_out(line, Cut(at, after=after))
        now = line.records.state()
        knows = champion_knows(line, folder)
        assert knows == (
            ("ada", "bolt") if now.standing.champion == 4 else ("ada", "quixby", "bolt")
        )
        _expire(line.home)
        take_out(line, Cut())
        ledger = line.records.state()
        assert champion_knows(line, folder) == ("ada", "bolt")
        assert line.registry.aliases("pets") == {"champion": 4, "previous": 3}
        assert [one.number for one in line.registry.versions("pets")] == [1, 2, 3, 4]
        assert [e.kind for e in line.records.events()].count("forgotten") == 1
        assert ledger.forgetting is None
        index = status_cache.refresh(line.home, line.registry, "pets")
        assert index.known() == {"ada": 1, "bolt": 3}


def test_what_fails_while_it_is_cleaned_up_hides_no_error(
    line: TaughtLine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The registry goes away in the middle, and the store before the lease is given back."""

    def gone(*_: object, **__: object) -> None:
        raise TrackingFailed("MLflow is gone")

    def silent(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "leases/pets.json")

    def first(*_: object, **__: object) -> None:
        monkeypatch.setattr(line.registry, "aliases", gone)
        monkeypatch.setattr(Leases, "release", silent)
        raise LostLease("the first error")

    monkeypatch.setattr(line.registry, "register", first)
    with pytest.raises(LostLease, match="the first error"):
        take_out(line, Cut())
    assert "MLflow is gone" in caplog.text and "not given back: Input/output error" in caplog.text
    with pytest.raises(LostLease, match="the first error"), Leases(line.home.store).held("cars"):
        raise LostLease("the first error")


def _expire(home: Home) -> None:
    home.store.delete("leases/pets.json")


def test_a_task_that_begins_after_a_kill_gets_an_id_of_its_own(line: TaughtLine) -> None:
    """Else it would be given the version without the concept as what it learned."""
    with pytest.raises(Killed):
        take_out(line, Cut(3, after=True))
    ledger = line.records.state()
    assert ledger.forgetting == Forgetting("quixby", 3, "t0004")
    assert line.records.next_task() == "t0005"
    snapshots.write(line.home.store, "pets", ledger)
    assert snapshots.read(line.home.store, "pets") == ledger


def test_a_concept_that_is_to_be_taught_anew_is_not_taken_out_before(line: TaughtLine) -> None:
    line.records.append("submitted", concept="quixby", class_noun="dog", upload="v", since=99)
    with pytest.raises(L2dmError, match="l2dm cancel --line pets --concept quixby"):
        take_out(line, Cut())
    assert line.records.state().standing.champion == 3


def test_who_lost_the_line_takes_nothing_out(line: TaughtLine) -> None:
    def lost() -> None:
        raise LostLease("taken for dead")

    with pytest.raises(LostLease):
        forget(line.home, line.registry, "pets", "quixby", "", lost)
    assert line.records.state().standing.champion == 3


def test_after_taking_out_a_check_goes_back_no_further(line: TaughtLine) -> None:
    from components.runtime.check_outcome import ChampionCheck

    take_out(line, Cut())
    check = object.__new__(ChampionCheck)
    check._registry, check._line = line.registry, "pets"
    assert list(check._former(4)) == []
    assert list(check._former(3)) == [2, 1]


class Shop:
    """The command, on a registry of folders."""

    def __init__(self, line: TaughtLine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.line = line
        monkeypatch.setattr(Target, "registry", lambda target: self._open())

    def _open(self) -> Registry:
        return FolderRegistry(self.line.folder / "registry")

    def run(self, *words: str, typed: str = "") -> tuple[int, str]:
        given = ["forget", "--home", str(self.line.home.folder), "--line", "pets", *words]
        done = CliRunner().invoke(app, given, input=typed)
        return done.exit_code, done.stdout + done.stderr


@pytest.fixture
def shop(line: TaughtLine, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(line, monkeypatch)


def test_the_command_says_what_is_champion_now(shop: Shop) -> None:
    code, said = shop.run("--concept", "quixby", "--reason", "it was [red]sold[/x]", "--json")
    assert (code, json.loads(said)["champion"]) == (0, 4)
    code, said = shop.run("--concept", "quixby")  # again: it is done
    assert (code, "version 4 is the champion, it does not know quixby" in said) == (0, True)
    code, said = shop.run("--concept", "tom")
    assert (code, "found 'tom'" in said) == (2, True)
    shared = CliRunner().invoke(app, ["status", "--home", str(shop.line.home.folder)])
    assert "forgotten" in shared.stdout and "learns by gated (rank 2, gate token)" in shared.stdout


def test_a_line_that_is_being_learned_is_left_alone(shop: Shop) -> None:
    with Leases(shop.line.home.store).held("pets"):
        code, said = shop.run("--concept", "quixby")
    assert (code, LineBusy.__name__ not in said, "held by" in said) == (1, True, True)
    assert Records(shop.line.home.store, "pets").state().standing.champion == 3
