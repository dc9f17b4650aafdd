"""Who teaches photographs to a base of flat scenes is told at once, and what to do."""

import json
import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, UnidentifiedImageError
from typer.testing import CliRunner

from components.intake import intake
from components.runtime.domain_warning import warning
from components.runtime.line_report import _warnings
from components.services.line.ledger import Event
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.doors import Concept, PictureFile, Upload
from l2dm.files.concept_json import to_bytes
from l2dm.files.manifest import sha256_of
from l2dm.pocket.world import scenes
from l2dm.uploads import flatness
from pipelines.commands import learn
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


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    found = b"\x89PNG\r\n\x1a\n"
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""))
    for name, data in chunks:
        found += struct.pack(">I", len(data)) + name + data
        found += struct.pack(">I", zlib.crc32(name + data))
    return found


def put(home: Home, pictures: list[Path]) -> None:
    """As anybody who may write to the inbox puts an upload there: nothing is checked."""
    files = tuple(PictureFile(one.name, sha256_of(one)) for one in pictures)
    for one in pictures:
        home.store.upload(f"inbox/pets/rex/{one.name}", one)
    upload = Upload("pets", Concept("rex", "dog"), files)
    home.store.write("inbox/pets/rex/concept.json", to_bytes(upload))


def test_learn_says_so_before_it_begins(
    tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home.at(tmp_path / "home")
    put(home, sorted(photographs.iterdir()))
    learn._warn(home, "pets", "rex", "pocket")
    assert "pets/rex: these look like photographs" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a program for another reader", "a bomb", "cut off"])
def test_learn_decodes_nothing_that_intake_would_refuse(
    tmp_path: Path, photographs: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the line's learning with a traceback, or run what Pillow runs for it."""
    bad = photographs / "1.jpg"
    if kind == "a bomb":
        bad.write_bytes(png_header(30_000, 30_000))
    elif kind == "cut off":
        bad.write_bytes(bad.read_bytes()[:2000])
    else:
        Image.new("RGB", (64, 64)).save(bad, "EPS")
    home = Home.at(tmp_path / "home")
    put(home, sorted(photographs.iterdir()))
    monkeypatch.setattr(flatness, "_counted", lambda path: pytest.fail(f"{path} was decoded"))
    learn._warn(home, "pets", "rex", "pocket")


def test_only_formats_of_pictures_are_opened(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png", "EPS")
    with pytest.raises(UnidentifiedImageError):
        flatness.are_photographs([tmp_path / "0.png"])


def test_the_report_takes_it_from_the_record_of_the_last_task() -> None:
    """Newest first, as records are read; a concept that was taught anew says what holds now."""
    events = [
        Event(4, "begun", {"concept": "mimi", "task": "t0003"}),
        Event(3, "ended", {"concept": "rex"}),
        Event(2, "begun", {"concept": "rex", "task": "t0002", "warnings": ["photographs"]}),
        Event(1, "begun", {"concept": "mimi", "task": "t0001", "warnings": ["photographs"]}),
    ]
    assert _warnings(events) == {"rex": "photographs"}


def test_intake_records_it_and_the_squares_that_were_cut_out(
    tmp_path: Path, photographs: Path
) -> None:
    """The very step: the run of the task is named before anything is said of it."""
    wide = shaded(40).resize((800, 200))
    wide.paste((255, 0, 0), (620, 20, 780, 180))
    wide.save(photographs / "wide.png")
    home = Home.at(tmp_path / "home")
    put(home, sorted(photographs.iterdir()))
    metrics = SimpleNamespace(path=str(tmp_path / "metrics"), log_metric=lambda *_: None)
    doors = {name: SimpleNamespace(path=str(tmp_path / name)) for name in ("task", "parent")}
    intake.python_func(
        **doors, metrics=metrics, line="pets", upload="rex", base="pocket", spec="{}",
        home=str(home.folder),
    )  # fmt: skip
    (begun,) = [one for one in Records(home.store, "pets").events() if one.kind == "begun"]
    photographed, cropped = begun.facts["warnings"]
    assert photographed.startswith("these look like photographs")
    left, right = map(int, re.findall(r"03\.png from \((\d+), 0\) to \((\d+), 200\)", cropped)[0])
    assert left <= 620 < 780 <= right
