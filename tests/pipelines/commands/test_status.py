"""`l2dm status`: one line of many costs what one line costs."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

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
