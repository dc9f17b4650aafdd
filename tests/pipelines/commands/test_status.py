"""`l2dm status`: one line of many costs what one line costs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.services.line import records as records_module
from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from pipelines.commands.cli import app

LINES = ("cars", "cups", "pets")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three lines, each with a champion that was checked."""
    home = Home.at(tmp_path / "home")
    for line in LINES:
        records = Records(home.store, line)
        records.append("promotion", line=line, source=0, target=1)
        found = {"seed": 1, "health": "healthy", "cause": "", "digest": "", "reasons": []}
        records.append("checked", line=line, version=1, **found)
    return home


def test_only_the_chosen_line_is_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    read, kept = list[str](), FolderObjects.read

    def watched(store: FolderObjects, key: str) -> object:
        read.append(key)
        return kept(store, key)

    monkeypatch.setattr(FolderObjects, "read", watched)
    with Leases(home.store).held("pets"):
        read.clear()
        done = CliRunner().invoke(app, ["status", "--line", "pets", "--home", str(home.folder)])
    assert done.exit_code == 0, done.output
    assert "version 1 was checked" in done.stdout and "being learned by" in done.stdout
    assert "records/pets/000002.json" in read
    assert not [key for key in read if "cars" in key or "cups" in key]


def test_every_line_is_told_where_none_is_chosen(home: Home) -> None:
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])
    assert done.stdout.count("version 1 was checked") == len(LINES)


def test_a_line_that_cannot_be_read_hides_no_other(home: Home) -> None:
    (home.folder / "records/cups/000002.json").unlink()
    Records(home.store, "cups").append("promotion", line="cups", source=1, target=2)
    (home.folder / "records/cups/000002.json").rename(home.folder / "records/cups/000003.json")
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])
    assert done.exit_code == 1
    assert done.stdout.count("version 1 was checked") == 2
    told = "line cups: expected event 'records/cups/000002.json', found 'records/cups/000003.json'"
    assert told in done.output
    asked = CliRunner().invoke(app, ["status", "--home", str(home.folder), "--json"])
    lines = {one["name"]: one for one in json.loads(asked.stdout)["lines"]}
    assert "unreadable" in lines["cups"] and "unreadable" not in lines["pets"]


def test_a_damaged_lease_hides_no_line(home: Home) -> None:
    home.store.write("leases/cars.json", b"{}")
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])
    assert done.exit_code == 1
    assert done.stdout.count("version 1 was checked") == len(LINES)
    assert "line cars: expected a lease as JSON in 'leases/cars.json'" in done.stderr


def test_a_damaged_copy_of_what_status_shows_is_made_again(home: Home) -> None:
    for damage in (b"", b"[]", b"\xff", b'{"aliases": 3}', b"[" * 100_000):
        home.store.write("lines/pets.json", damage)
        done = CliRunner().invoke(app, ["status", "--line", "pets", "--home", str(home.folder)])
        assert done.exit_code == 0, (damage[:20], done.output)
        assert "version 1 was checked" in done.stdout


@pytest.mark.parametrize("name", ["a'b", "x\x1b[2Jy", "Rex", "a b", "ü", "%2e%2e", "a" * 60])
def test_what_no_line_or_concept_can_be_called_is_set_aside_and_named(
    home: Home, name: str
) -> None:
    for key in (f"inbox/{name}/rex/concept.json", f"inbox/pets/{name}/concept.json"):
        (home.folder / key).parent.mkdir(parents=True)
        (home.folder / key).write_bytes(b"{}")
    assert home.lines() == LINES
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])
    assert done.exit_code == 0, done.output
    assert done.output.count("set aside: ") == 2
    assert "\x1b" not in done.output
    asked = json.loads(CliRunner().invoke(app, ["status", "--home", home.place, "--json"]).stdout)
    pets = {one["name"]: one for one in asked["lines"]}["pets"]
    assert (asked["set_aside"], pets["set_aside"]) == ([f"inbox/{name}"], [f"inbox/pets/{name}"])
    assert pets["concepts"] == []


def test_history_names_a_lost_record_and_a_damaged_one_and_shows_the_others(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(home.store, "cups")
    for source in (1, 2, 3):
        records.append("promotion", line="cups", source=source, target=source + 1)
    (home.folder / "records/cups/000002.json").unlink()
    home.store.write("records/cups/000004.json", b"{")
    words = ["history", "--line", "cups", "--home", str(home.folder)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    shown = done.stdout.splitlines()
    assert [one.split()[0] for one in shown] == ["1", "2", "3", "4", "5"]
    assert "cannot be read: expected an event in 'records/cups/000002.json', found none" in shown[1]
    assert "cannot be read: expected an event as JSON in 'records/cups/000004.json'" in shown[3]
    assert "missing or damaged at 2, 4; restore it from a backup" in done.stderr
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [one["number"] for one in told["events"]] == [1, 3, 5]
    assert [one["number"] for one in told["wrong"]] == [2, 4]
    for number in (1, 3):
        (home.folder / f"records/cups/{number:06d}.json").unlink()
    assert "damaged at 1 to 4; restore" in CliRunner().invoke(app, words).stderr
    monkeypatch.setattr(records_module, "MANY", 2)
    shown = CliRunner().invoke(app, words).stdout.splitlines()
    assert [one.split()[0] for one in shown] == ["1", "2", "4", "5"]
    assert "events are never removed. So are all up to 3" in shown[1]
    words[2] = "pets"
    assert CliRunner().invoke(app, words).exit_code == 0
