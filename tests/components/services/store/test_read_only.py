"""A state folder that can only be read is looked at like any other."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.services.line import status_cache
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, VersionFacts
from pipelines.commands.cli import app
from pipelines.commands.lines import status

FACTS = VersionFacts("t0001", "rex", "dog", 0, "digest", True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A line with a version; the copy for `l2dm status` is missing."""
    home = Home.at(tmp_path / "home")
    begun = {"task": "t0001", "parent_version": 0, "upload": "u"}
    Records(home.store, "pets").append("begun", concept="rex", class_noun="dog", **begun)
    return home


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    (tmp_path / "release").mkdir()
    found = FolderRegistry(tmp_path / "registry")
    found.register("pets", tmp_path / "release", FACTS)
    return found


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_status_of_a_folder_that_cannot_be_written(
    home: Home, registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(FolderObjects, "write", refused)
    index = status_cache.read(home, "pets", lambda: registry)
    assert [one.number for one in index.versions] == [1]
    assert status_cache.status(home, "pets", index)["concepts"][0]["name"] == "rex"
    assert home.store.read("records/pets/000001.json").age < 60


def test_status_asked_anew_shows_the_registry_and_says_that_nothing_was_stored(
    home: Home, registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = json.dumps({"aliases": {"champion": 9}, "versions": []}).encode()
    home.store.write("lines/pets.json", stale)
    registry.set_alias("pets", "champion", 1)

    def refused(store: FolderObjects, key: str, *_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(store.folder / key))

    monkeypatch.setattr(FolderObjects, "write", refused)
    monkeypatch.setattr(FolderObjects, "delete", refused)
    monkeypatch.setattr(status, "open_registry", lambda *_: registry)
    words = ["status", "--refresh", "--home", str(home.folder)]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "pets: champion 1" in done.stdout) == (0, True), done.output
    assert home.store.read("lines/pets.json").data == stale


def test_what_was_not_stored_is_told_in_words(
    home: Home,
    registry: FolderRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refused(store: FolderObjects, key: str, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.folder / key))

    monkeypatch.setattr(FolderObjects, "write", refused)
    status_cache.refresh(home, registry, "pets")
    assert "was not stored: No space left on device at " in caplog.text
    assert "lines/pets.json: free some space there" in caplog.text and "Errno" not in caplog.text


def test_a_disk_that_fails_is_not_taken_for_a_read_only_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(self: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))

    monkeypatch.setattr(Path, "touch", failed)
    with pytest.raises(OSError, match="Input/output error"):
        home.store.read("records/pets/000001.json")


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="this user may mount nothing")
def test_the_command_looks_at_a_folder_that_is_mounted_to_be_read(home: Home) -> None:
    code = "from pipelines.commands.cli import main; main()"
    script = (
        f"mount --bind {home.folder} {home.folder} && mount -o remount,ro,bind {home.folder} && "
        f"! touch {home.folder}/x && "
        f"exec {sys.executable} -c '{code}' history --line pets --home {home.folder}"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and "begun" in done.stdout, done.stderr
