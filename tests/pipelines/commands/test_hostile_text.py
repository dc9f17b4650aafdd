"""Reasons, nouns and messages that would steer a terminal: shown, not obeyed, nothing lost."""

import json
import logging
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm import escape, redaction
from l2dm.doors import Concept
from l2dm.errors import BadUpload
from pipelines.commands import cli
from pipelines.commands.cli import app
from pipelines.commands.output import (
    PlainLog,
    guard_streams,
    tell_json,
    tell_json_line,
    tell_paths,
    tell_script,
)
from tests.worlds.hostile_text import printable, texts

FEW = ("--set", "intake.max_pictures=100")
STEERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A line whose uploads all ended badly, each for a hostile reason of a hostile noun."""
    home = Home.at(tmp_path_factory.mktemp("hostile") / "home")
    records, nouns = Records(home.store, "pets"), printable()
    for number, reason in enumerate(texts()):
        noun = nouns[number % len(nouns)]
        name = f"c{number}"
        records.append("submitted", concept=name, class_noun=noun, upload=f"{number:064x}")
        ended = ConceptState(name, noun, "failed", reasons=(reason,), upload=f"{number:064x}")
        records.end(ended)
    return home


def run(home: Home, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "2000"}).invoke(app, [*arguments, "--home", str(home.folder)])


def test_status_shows_every_reason_and_noun(home: Home) -> None:
    done = run(home, "status")
    assert done.exit_code == 0, done.output
    assert not STEERS.search(done.stdout)
    for text in (*texts(), *printable()):
        assert escape.line(text).strip() in done.stdout


def test_status_for_scripts_gives_every_text_back(home: Home) -> None:
    done = run(home, "status", "--json")
    assert done.stdout.isascii() and not STEERS.search(done.stdout)
    concepts = json.loads(done.stdout)["lines"][0]["concepts"]
    assert [one["reasons"] for one in concepts] == [[text] for text in texts()]


def test_history_keeps_to_a_line_an_event(home: Home) -> None:
    done = run(home, "history", "--line", "pets")
    assert done.exit_code == 0, done.output
    assert not STEERS.search(done.stdout)
    assert len(done.stdout.splitlines()) == 2 * len(texts())


def test_an_error_names_what_it_found_and_steers_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **more: object) -> None:
        raise BadUpload([f"picture {text}: cannot be read" for text in texts()])

    monkeypatch.setattr("pipelines.commands.uploads.submit.submit_pictures", refuse)
    done = run(home, "submit", ".", "--line", "pets", "--concept", "rex", "--class-noun", "dog")
    assert done.exit_code == cli.BAD_INPUT
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.stderr)
    for text in texts():
        assert escape.lines(text) in done.stderr


def test_pictures_with_hostile_names_are_refused_in_plain_words(tmp_path: Path) -> None:
    """A sentence a file, and no line of a file's own."""
    folder, names = tmp_path / "in", set[str]()
    folder.mkdir()
    for text in texts():
        name = text.replace("/", "_").replace("\0", "_")[:60] + ".jpg"
        try:
            (folder / name).write_bytes(b"no picture")
        except (OSError, UnicodeEncodeError):  # no file can be called so here
            continue
        if not name.startswith("."):  # that would be hidden
            names.add(name)
    asked = ["--line", "pets", "--concept", "rex", "--class-noun", "dog"]
    done = run(Home.at(tmp_path / "home"), "submit", str(folder), *asked, *FEW)
    assert len(names) >= 300
    assert done.exit_code == cli.BAD_INPUT
    assert not STEERS.search(done.stderr.replace("\n", ""))
    assert done.stderr.count("\n  - picture ") == len(names)


@pytest.mark.parametrize("reason", ["[/x]", "\x1b[2J", "<b>", "a\nfake: promoted"])
def test_a_cancel_with_any_reason_leaves_a_line_that_can_be_read(
    tmp_path: Path, reason: str
) -> None:
    home = Home.at(tmp_path / "home")
    digest = home.store.create("inbox/pets/rex/concept.json", b"{}")
    assert digest
    asked = ["--line", "pets", "--concept", "rex", "--reason", reason]
    assert run(home, "cancel", *asked).exit_code == 0
    done = run(home, "status")
    assert done.exit_code == 0, done.output
    assert escape.line(reason) in done.stdout


def test_log_lines_and_bare_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = logging.LogRecord("l2dm", logging.ERROR, "", 0, "line %s", ("\x1b[2J[/x]",), None)
    assert PlainLog().format(record) == r"line \x1b[2J[/x]"
    called = []
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **how: called.append(how), raising=False)
    guard_streams()
    assert called == [{"errors": "backslashreplace"}]
    assert logging.lastResort is not None
    assert isinstance(logging.lastResort.formatter, PlainLog)


def test_a_script_keeps_its_bytes_and_a_terminal_is_shown_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture may be called by a control character, and the script must find it."""
    tell_script("curl './a\x01.jpg'")
    assert capsys.readouterr().out == "curl './a\x01.jpg'\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    tell_script("curl './a\x01.jpg'")
    assert capsys.readouterr().out == "curl './a\\x01.jpg'\n"


def test_a_concept_prints_as_it_was_typed() -> None:
    for noun in printable():
        assert escape.line(Concept("rex", noun).phrase) == f"<rex> {noun}"


def test_what_scripts_are_told_hides_secrets_and_alters_no_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_KNOWN", ["hush-hush"])
    named = tmp_path / "token=7&api_key=rex" / "it's \"pw='x'\".png"
    named.parent.mkdir()
    named.touch()
    secret = tmp_path / "hush-hush"
    secret.mkdir()
    tell_json(
        {
            "files": [str(named), str(secret)],
            "why": "GET http://me:hush@mlflow/?token=hush failed",
            "password": "hush",
            "gone": str(tmp_path / "gone" / "token=hush"),
            "seed": 7,
            "lines": {"of hush-hush": "left"},
        }
    )
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == [str(named), str(tmp_path / "***")]
    assert "hush" not in json.dumps([told["why"], told["password"], told["gone"]])
    assert told["seed"] == 7 and told["lines"] == {"of ***": "left"}
    tell_json_line({"file": str(named)})
    assert json.loads(capsys.readouterr().out) == {"file": str(named)}
    tell_paths([str(named)])
    assert capsys.readouterr().out == f"{named}\n"
