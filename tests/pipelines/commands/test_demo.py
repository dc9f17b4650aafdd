"""`l2dm demo` ends with a command that works when it is pasted."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.store.home import Home
from pipelines.commands import demo as page
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from pipelines.commands.versions import generate


def learned(target: Target, json: bool) -> None:
    """A line that has two champions behind it and a third upload that was held."""
    records = Records(target.home.store, target.line)
    for number, (name, noun) in enumerate((("rex", "dog"), ("mimi", "cat")), start=1):
        records.append("submitted", concept=name, class_noun=noun)
        records.append("promotion", source=number - 1, target=number)
        records.end(ConceptState(name, noun, "promoted", version=number))
    records.append("submitted", concept="sunny", class_noun="cup")
    records.end(ConceptState("sunny", "cup", "held", version=3))


def demo(home: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["demo", "--home", str(home), *more])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is learned here."""
    monkeypatch.setattr(page, "write_uploads", lambda home: None)
    monkeypatch.setattr(page, "learn_all", learned)


def test_it_ends_with_a_command_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/l2dm", "demo"])
    home = tmp_path / "a home"
    last = demo(home).stdout.splitlines()[-1]
    head, _, command = last.partition(": ")
    program, *words = shlex.split(command)
    assert (head, program) == ("try", ".venv/bin/l2dm")
    drawn = list[Any]()
    made = generate.Drawn([Path("one.png")], [], [])
    monkeypatch.setattr(generate, "draw", lambda *given: drawn.append(given) or made)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (0, "one.png\n")
    ((target, version, order, _),) = drawn
    assert (target.home, target.line, version) == (Home.at(home), "demo", "champion")
    assert order.prompts == ["a photo of a <mimi> cat"]


def test_another_base_is_named_in_it(tmp_path: Path) -> None:
    assert "--base org/name" in demo(tmp_path / "home", "--base", "org/name").stdout
    assert "--base" not in demo(tmp_path / "pocket").stdout


def test_scripts_and_lines_without_champion_see_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "try:" not in demo(tmp_path / "home", "--json").stdout
    monkeypatch.setattr(page, "learn_all", lambda target, json: None)
    done = demo(tmp_path / "empty")
    assert (done.exit_code, done.stdout) == (0, "")
