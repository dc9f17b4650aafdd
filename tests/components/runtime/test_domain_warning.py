"""Who teaches photographs to a base of flat scenes is told at once, and what to do."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.runtime.domain_warning import warning
from components.runtime.line_report import _warnings
from components.services.line.ledger import Event
from l2dm.pocket.world import scenes
from pipelines.commands.cli import app
from tests.l2dm.uploads.test_flatness import shaded


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        shaded(10 * number).save(folder / f"{number}.jpg", quality=92)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, picture in enumerate(scenes.photos(scenes.identity(7001, "dog"), 3, seed=0)):
        picture.save(folder / f"{number}.png")
    return folder


def submit(home: Path, folder: Path, *more: str) -> tuple[str, str]:
    words = ["submit", str(folder), "--line", "pets", "--concept", "rex", "--class-noun", "dog"]
    done = CliRunner().invoke(app, [*words, "--home", str(home), *more])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_submit_says_so_at_once_and_takes_the_upload(tmp_path: Path, photographs: Path) -> None:
    told, noted = submit(tmp_path / "home", photographs)
    assert "3 pictures wait" in told
    assert "look like photographs" in noted and "flat 64x64 scenes" in noted
    assert "--base" in noted and "docs/bases.md" in noted


def test_scripts_find_it_in_json(tmp_path: Path, photographs: Path) -> None:
    told, _ = submit(tmp_path / "home", photographs, "--json")
    (sentence,) = json.loads(told)["warnings"]
    assert sentence.startswith("these look like photographs")


def test_flat_pictures_need_no_word(tmp_path: Path, flat: Path) -> None:
    told, noted = submit(tmp_path / "home", flat, "--json")
    assert "warnings" not in json.loads(told) and not noted


def test_other_bases_are_not_warned_of(tmp_path: Path, photographs: Path) -> None:
    def asked() -> object:
        raise AssertionError("no picture is looked at where the base draws anything")
        yield

    other = tmp_path / "base"
    other.mkdir()
    for base in (str(other), "org/name", "s3://bucket/base", str(tmp_path / "nowhere")):
        assert warning(base, asked()) == ""  # type: ignore[arg-type]
    _, noted = submit(tmp_path / "home", photographs, "--base", "org/name")
    assert not noted


def test_the_report_takes_it_from_the_record_of_the_last_task() -> None:
    """Newest first, as records are read; a concept that was taught anew says what holds now."""
    events = [
        Event(4, "begun", {"concept": "mimi", "task": "t0003"}),
        Event(3, "ended", {"concept": "rex"}),
        Event(2, "begun", {"concept": "rex", "task": "t0002", "warnings": ["photographs"]}),
        Event(1, "begun", {"concept": "mimi", "task": "t0001", "warnings": ["photographs"]}),
    ]
    assert _warnings(events) == {"rex": "photographs"}
