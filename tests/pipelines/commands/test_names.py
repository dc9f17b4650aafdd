"""A name that names no line or concept is bad input, wherever it is typed; none becomes a path."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.worlds.picture_files import saved, scene

NAMES = [
    *("", ".", "..", "../x", "a/b", "a//b", "/etc", "a\\b", "a\nb", "a\x00b", "a\x7f", "\ud800"),
    *("é", "a'b", "A B", "-x", "1a", "*", "a?b", "%2e", "<rex>", "rex ", "x" * 41, "x" * 300),
    "x" * 2000,
]
SENTENCE = "expected 1 to 40 lowercase letters, digits, - and _, a letter first; try '"


def refused(home: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--home", str(home)])
    assert done.exit_code == 2, done.output
    assert "object key" not in done.output
    return done.stderr


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_bad_name_is_refused_with_the_slug_that_it_could_be(name: str, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "in"
    folder.mkdir()
    saved(scene(1), folder / "one.png")
    asked = ("submit", str(folder), "--class-noun", "dog")
    for more in (("--line", name, "--concept", "rex"), ("--line", "pets", "--concept", name)):
        said = refused(home, *asked, *more)
        assert SENTENCE in said
        assert "expected 3 to 20 pictures" in said  # the pictures' problems are listed with it
    (home / "inbox" / "pets" / "tom").mkdir(parents=True)
    assert SENTENCE in refused(home, "cancel", "--line", "pets", "--concept", name)
    for command in ("cancel", "history"):
        concept = ("--concept", "rex") if command == "cancel" else ()
        assert "there are ['pets']" in refused(home, command, "--line", name, *concept)
    assert sorted(path.name for path in home.rglob("*")) == ["inbox", "pets", "tom"]
