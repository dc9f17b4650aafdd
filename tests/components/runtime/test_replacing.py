"""A concept is taught anew: its upload says so, and its parent is the champion without it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from components.runtime import outcomes
from components.services.line import status_cache
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.uploads import Commitment, Uploads, fetched
from components.services.tracking.registry import VersionFacts
from l2dm import doors
from l2dm.errors import BadDoor
from l2dm.files import concept_json, manifest
from l2dm.releases.without import known
from l2dm.spec import from_json
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from tests.worlds.taught_line import QUIXBY, TaughtLine
from tests.worlds.uploads import pictures


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaughtLine:
    made = TaughtLine(tmp_path)
    monkeypatch.setattr(Target, "registry", lambda target: made.registry)
    status_cache.refresh(made.home, made.registry, "pets")
    return made


def submit(line: TaughtLine, name: str, *more: str, first: int = 0) -> tuple[int, str]:
    folder = pictures(line.folder / f"in-{name}-{first}", 4, first)
    words = ["submit", str(folder), "--line", "pets", "--concept", name, "--class-noun", "dog"]
    done = CliRunner().invoke(app, [*words, *more, "--home", str(line.home.folder)])
    return done.exit_code, done.stdout + done.stderr


def test_only_with_replace_and_only_what_the_champion_knows(line: TaughtLine) -> None:
    code, said = submit(line, "quixby")
    assert (code, "found it taken (learned in version 2; " in said) == (2, True)
    assert "l2dm submit --replace" in said
    code, said = submit(line, "tom", "--replace")
    assert (code, "--replace teaches it anew, found ['ada', 'bolt', 'quixby']" in said) == (2, True)
    before = {entry.key for entry in line.home.store.list("inbox/pets/quixby/")}
    assert submit(line, "quixby", "--replace")[0] == 0
    after = {entry.key for entry in line.home.store.list("inbox/pets/quixby/")}
    assert before & after == {"inbox/pets/quixby/concept.json"}  # the pictures are others
    text = json.loads(line.home.store.read("inbox/pets/quixby/concept.json").data)
    assert text["replaces"] is True
    code, said = submit(line, "quixby", "--replace", first=5)  # before it was learned
    assert (code, "its upload is waiting" in said) == (2, True)


def test_it_waits_and_the_champion_knows_the_old_one_until_then(line: TaughtLine) -> None:
    submit(line, "quixby", "--replace")
    states = line.records.concepts()
    assert Uploads(line.home.store, "pets").waiting(states) == ("quixby",)
    index = status_cache.read(line.home, "pets", lambda: line.registry)
    assert index.known()["quixby"] == 2
    told = status_cache.status(line.home, "pets", index)["concepts"]
    assert [(one["state"], one["known"]) for one in told if one["name"] == "quixby"] == [
        ("waiting", True)
    ]


def begin(line: TaughtLine, parent: Path, monkeypatch: pytest.MonkeyPatch, **looked: Any) -> Any:
    monkeypatch.setattr(outcomes, "_registry", lambda step: line.registry)
    spec = from_json('{"train": {"method": "gated", "rank": 2}, "gated": {"gate": "token"}}')
    step: Any = SimpleNamespace(
        subject=SimpleNamespace(line="pets", concept="quixby"),
        home=line.home,
        spec=spec,
        looked=Commitment("another", "mark", **looked),
        context_for=lambda task, version: (task, version),
    )
    return outcomes.begin(step, str(parent), lambda *_: None)


def test_its_parent_is_the_champion_without_it(
    line: TaughtLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    parent = tmp_path / "run" / "parent"
    assert begin(line, parent, monkeypatch, replaces=True) == ("t0004", 3)
    assert known(parent) == ("ada", "bolt")
    first = manifest.read(parent, doors.Release)
    assert begin(line, parent, monkeypatch, replaces=True) == ("t0004", 3)
    assert manifest.read(parent, doors.Release).digest == first.digest  # after a kill, too
    assert [path.name for path in parent.parent.iterdir()] == ["parent"]
    begin(line, parent, monkeypatch)
    assert known(parent) == ("ada", "quixby", "bolt")


def test_a_damaged_parent_is_told_as_the_version_that_it_is(
    line: TaughtLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line.registry.folder / "pets" / "3" / "release" / "adapter" / "curve.json").unlink()
    with pytest.raises(BadDoor) as caught:
        begin(line, tmp_path / "parent", monkeypatch)
    said = str(caught.value)
    assert (
        "version 3 of line 'pets' is not what was written: missing ['adapter/curve.json']" in said
    )
    assert "l2dm repair --line pets" in said and str(tmp_path / "parent") not in said


def test_the_version_that_learned_it_last_counts_and_the_old_one_stays(line: TaughtLine) -> None:
    facts = VersionFacts("t0004", "quixby", "dog", 3, "digest", True)
    version = line.registry.register("pets", line.folder / "releases" / "t0003", facts)
    line.records.append("promotion", line="pets", task="t0004", source=3, target=version)
    line.registry.set_alias("pets", "champion", version)
    index = status_cache.refresh(line.home, line.registry, "pets")
    assert index.known() == {"ada": 1, "quixby": 4, "bolt": 3}
    assert [one.number for one in line.registry.versions("pets")] == [1, 2, 3, 4]
    assert Records(line.home.store, "pets").state().standing.previous == 3


def test_after_a_rollback_status_shows_the_version_that_the_champion_knows(
    line: TaughtLine,
) -> None:
    reasons = ("<quixby> is remembered anew.",)
    facts = VersionFacts("t0004", "quixby", "dog", 3, "digest", True, reasons)
    line.registry.register("pets", line.folder / "releases" / "t0003", facts)
    line.records.append("promotion", line="pets", task="t0004", source=3, target=4)
    upload = Uploads(line.home.store, "pets").digest("quixby")
    ended = ConceptState("quixby", "dog", "promoted", 4, reasons, "t0004", upload=upload)
    line.records.end(ended)
    line.records.append("rollback", line="pets", source=4, target=3, reasons=[])
    line.registry.set_alias("pets", "champion", 3)
    index = status_cache.refresh(line.home, line.registry, "pets")
    told = status_cache.status(line.home, "pets", index)["concepts"]
    (told,) = (one for one in told if one["name"] == "quixby")
    assert (told["version"], told["known"], told["known_version"]) == (2, True, 2)
    assert told["taken_back"] == 4 and reasons[0] not in told["reasons"]
    runner = CliRunner(env={"COLUMNS": "300"})
    shown = runner.invoke(app, ["status", "--home", str(line.home.folder)]).stdout
    assert "taught anew in version 4" in shown and "rollback --line pets --to 4" in shown


def test_a_held_version_stands_beside_the_one_that_the_champion_knows(line: TaughtLine) -> None:
    facts = VersionFacts("t0004", "quixby", "dog", 3, "digest", False)
    line.registry.register("pets", line.folder / "releases" / "t0003", facts)
    upload = Uploads(line.home.store, "pets").digest("quixby")
    line.records.end(ConceptState("quixby", "dog", "held", 4, task="t0004", upload=upload))
    index = status_cache.refresh(line.home, line.registry, "pets")
    told = status_cache.status(line.home, "pets", index)["concepts"]
    (told,) = (one for one in told if one["name"] == "quixby")
    assert (told["state"], told["version"], told["known_version"]) == ("held", 4, 2)
    assert told["taken_back"] is None


def test_a_concept_json_that_replaces_nothing_is_as_it_always_was(tmp_path: Path) -> None:
    plain = doors.Upload("pets", QUIXBY, (doors.PictureFile("00.png", "0" * 64),))
    text = concept_json.to_bytes(plain)
    assert b"replaces" not in text
    assert manifest.from_data(doors.Upload, json.loads(text)) == plain
    for data, said in (
        (text, False),
        (concept_json.to_bytes(doors.Upload("pets", QUIXBY, (), True)), True),
        (b'{"replaces": "yes"}', False),
        (b"[1]", False),
        (b"{", False),
    ):
        (tmp_path / "concept.json").write_bytes(data)
        assert fetched(tmp_path, "").replaces is said
