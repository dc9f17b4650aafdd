"""The database of a state folder: made whole or not at all, and found wherever the folder lies."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from components.services.store.home import Home
from components.services.tracking import database
from components.services.tracking.connection import connect
from components.services.tracking.left_files import RELEASE, versions_in
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from components.services.tracking.runs import MlflowTracking
from l2dm import doors
from l2dm.errors import FilesGone, TrackingFailed
from l2dm.files import manifest
from l2dm.steps import empty_release

MODEL_CODE = Path(__file__).parents[3] / "worlds" / "echo_model.py"
FACTS = VersionFacts("t0001", "rex", "dog", 0, "digest-1", True)
PLACES = (
    "SELECT artifact_location FROM experiments",
    "SELECT artifact_uri FROM runs",
    "SELECT artifact_location FROM logged_models",
    "SELECT storage_location FROM model_versions",
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "some-name"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def learned(home: Home, release: Path, tmp_path: Path) -> Home:
    """A home of its own with one version."""
    (tmp_path / "first").mkdir()
    shutil.move(home.database, tmp_path / "first" / "mlflow.db")
    there = Home.at(tmp_path / "first")
    assert registry(there).register("pets", release, FACTS) == 1
    return there


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, template: Path) -> list[Path]:
    """A new database is a copy of the session's; which ones were made."""
    made: list[Path] = []

    def fill(draft: Path) -> None:
        made.append(draft)
        time.sleep(0.2)  # others come meanwhile
        shutil.copy(template, draft)

    monkeypatch.setattr(database, "_fill", fill)
    return made


def registry(home: Home) -> MlflowRegistry:
    return MlflowRegistry(home, "pocket", MODEL_CODE)


def moved(home: Home, name: str = "second") -> Home:
    to = home.folder.with_name(name)
    os.rename(home.folder, to)
    return Home.at(to)


def places(home: Home) -> set[str]:
    with closing(sqlite3.connect(home.database)) as connection:
        return {place for query in PLACES for (place,) in connection.execute(query)}


def as_an_earlier_release_wrote_it(home: Home) -> None:
    whole = (home.artifacts / "pets").as_uri()
    with closing(sqlite3.connect(home.database)) as connection, connection:
        for query in PLACES:
            _, column, _, table = query.split()
            set_to = f"replace({column}, 'mlflow-artifacts:/pets', '{whole}')"
            connection.execute(f"UPDATE {table} SET {column} = {set_to}")
    assert any(place.startswith("file:///") for place in places(home))


@pytest.mark.parametrize("name", ["second", "a b%20c?d#e", "ü & co"])
def test_a_home_that_is_moved_works_as_before(
    learned: Home, release: Path, tmp_path: Path, name: str
) -> None:
    there = moved(learned, name)
    found = registry(there)
    assert (found.fetch("pets", 1, tmp_path / "got") / "manifest.json").read_text() == "{}"
    assert found.register("pets", release, VersionFacts("t0002", "mimi", "cat", 1, "2", True)) == 2
    tracking = MlflowTracking(there, "pets", "t0002")
    tracking.file(release / "manifest.json", "sheets")
    assert [*there.artifacts.glob("pets/*/artifacts/sheets/manifest.json")]
    found.fetch("pets", 2, tmp_path / "got")
    assert not learned.folder.exists(), "something was written where the home was"
    assert {path.name for path in there.folder.parent.iterdir()} == {name, "some-name", "got"}


def test_a_home_of_an_earlier_release_holds_no_whole_path_once_it_is_opened(
    learned: Home, release: Path, tmp_path: Path
) -> None:
    as_an_earlier_release_wrote_it(learned)
    there = moved(learned)
    found = registry(there)
    found.fetch("pets", 1, tmp_path / "got")
    assert all(place.startswith("mlflow-artifacts:/") for place in places(there))
    assert found.register("pets", release, VersionFacts("t0002", "mimi", "cat", 1, "2", True)) == 2
    assert not learned.folder.exists()


def test_a_home_of_an_earlier_release_that_cannot_be_written_is_read(
    learned: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_an_earlier_release_wrote_it(learned)
    there = moved(learned)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert (registry(there).fetch("pets", 1, tmp_path / "got") / "manifest.json").exists()
    assert any(place.startswith("file:///") for place in places(there))


def test_a_version_holds_no_path_of_the_machine_and_no_user_of_it(learned: Home) -> None:
    told = {path: path.read_bytes() for path in learned.folder.rglob("*") if path.is_file()}
    here = (str(learned.folder), str(MODEL_CODE.parent), "/tmp")
    assert {path for path, data in told.items() for one in here if one.encode() in data} == set()
    with closing(sqlite3.connect(learned.database)) as connection:
        tags = {key for (key,) in connection.execute("SELECT tag_key FROM logged_model_tags")}
        users = {user for (user,) in connection.execute("SELECT user_id FROM runs")}
    assert tags == {"l2dm.digest", "l2dm.task"}
    assert users <= {"unknown"}


def test_what_is_gone_is_told_from_what_is_out_of_reach(learned: Home, tmp_path: Path) -> None:
    found = registry(learned)
    learned.artifacts.rename(tmp_path / "away")
    learned.artifacts.mkdir()  # where a disk would be mounted
    with pytest.raises(TrackingFailed, match=r"models, found no such folder; mount the disk") as at:
        found.fetch("pets", 1, tmp_path / "got")
    assert not isinstance(at.value, FilesGone)
    learned.artifacts.rmdir()
    (tmp_path / "away").rename(learned.artifacts)
    found.fetch("pets", 1, tmp_path / "got")
    (folder,) = learned.artifacts.glob("pets/models/*")
    shutil.rmtree(folder)
    with pytest.raises(FilesGone, match="found none; others are there"):
        found.fetch("pets", 1, tmp_path / "got")


def test_of_eight_that_open_a_fresh_home_at_once_one_makes_the_database(
    tmp_path: Path, quick: list[Path]
) -> None:
    home = Home.at(tmp_path / "fresh")
    home.folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: database.prepare(home), range(8)))
    assert len(quick) == 1
    assert sorted(path.name for path in home.folder.iterdir()) == [".store", "mlflow.db"]
    assert registry(home).lines() == ()


def half_by_migration(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")


@pytest.mark.parametrize("spoil", [half_by_migration, Path.touch])
def test_a_database_that_was_half_made_is_set_aside(
    tmp_path: Path, quick: list[Path], spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path / "mlflow.db")
    before = (tmp_path / "mlflow.db").read_bytes()
    home = Home.at(tmp_path)
    database.prepare(home)
    assert registry(home).lines() == ()
    (aside,) = tmp_path.glob("mlflow.db.half-made-*")
    assert (aside.read_bytes(), len(quick)) == (before, 1)


def test_one_that_fails_while_it_is_made_leaves_nothing_and_the_next_works(
    tmp_path: Path, quick: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, fill = Home.at(tmp_path), database._fill

    def full(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(draft))

    monkeypatch.setattr(database, "_fill", full)
    with pytest.raises(OSError, match="No space left"):
        database.prepare(home)
    (tmp_path / ".mlflow-of-a-killed-process.db").write_bytes(b"half")
    assert not home.database.exists()
    monkeypatch.setattr(database, "_fill", fill)
    database.prepare(home)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store", "mlflow.db"]


def test_a_database_that_is_missing_beside_its_files_is_not_made_anew(
    learned: Home, quick: list[Path]
) -> None:
    learned.database.unlink()
    with pytest.raises(TrackingFailed, match=r"the versions of \['pets'\], found none, while"):
        connect(learned)
    assert not learned.database.exists() and not quick


def test_a_file_that_is_no_database_is_left_as_it_is(home: Home) -> None:
    home.database.write_bytes(b"x" * 5000)
    with pytest.raises(TrackingFailed, match="found a file that is none"):
        connect(home)
    assert home.database.read_bytes() == b"x" * 5000


def test_a_locked_database_is_waited_for(learned: Home) -> None:
    """Longer than the five seconds of SQLite's own."""
    found, other = registry(learned), sqlite3.connect(learned.database, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    waiting = threading.Timer(6.0, other.rollback)
    waiting.start()
    found.set_alias("pets", "champion", 1)
    assert not waiting.is_alive()
    waiting.join()
    other.close()
    assert found.aliases("pets") == {"champion": 1}


def test_a_database_that_cannot_be_written_anew_is_told(
    learned: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAIT", 0)
    with closing(sqlite3.connect(learned.database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingFailed, match=r"found: database is locked; .* run it again"):
            database.write_anew(learned.database)
    database.write_anew(learned.database)


@pytest.mark.slow
def test_a_fresh_home_survives_kills_while_eight_open_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom components.services.store.home import Home\n"
        "from components.services.tracking.connection import connect\n"
        "connect(Home.at(sys.argv[1])).MlflowClient().search_experiments()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    killed = [subprocess.Popen(command) for _ in range(2)]
    time.sleep(8)
    for one in killed:
        one.kill()
        one.wait()
    eight = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(8)]
    assert [(one.wait(), one.communicate()[1][-500:])[0] for one in eight] == [0] * 8
    kept = sorted(path.name for path in (tmp_path / "home").iterdir())
    assert kept == [".store", "mlflow.db"]


def test_versions_of_a_lost_database_are_found_again_by_their_files(
    learned: Home, template: Path, tmp_path: Path, tiny_base: Path
) -> None:
    """Under their old numbers, also where a number between them was used up."""
    release = empty_release(tmp_path / "empty", "pets", str(tiny_base)).folder
    digest = manifest.read(release, doors.Release).digest
    facts = [
        VersionFacts(f"t000{n}", name, "dog", n - 1, digest, True, ("fine",), {"drift": n / 10})
        for n, name in ((2, "mimi"), (3, "sunny"), (4, "bolt"))
    ]
    found = registry(learned)
    for one in facts:
        found.register("pets", release, one)
    found._remove("pets", 3)
    there = moved(learned)
    shutil.copy(template, there.database)  # as `database.make` leaves it
    found = registry(there)
    assert found.adopt("pets", {2: "t0002", 4: "t0004", 5: "t0009"}) == (2, 4)
    assert [(one.number, one.facts) for one in found.versions("pets")] == [
        (2, facts[0]),
        (4, facts[2]),
    ]
    assert manifest.read(found.fetch("pets", 4, tmp_path / "got"), doors.Release).digest == digest
    assert found.adopt("pets", {}) == ()


def test_what_a_release_says_of_itself_is_not_lost_with_the_database(tmp_path: Path) -> None:
    """Of a version whose facts an earlier release left in the database alone: all but scores."""
    rex, finding = doors.Concept("rex", "dog"), doors.Finding("identity", False)
    verdict = doors.Verdict(False, ("too unlike",), (finding,))
    record = doors.Release("pets", "t0002", rex, 1, "a", "m", "s", verdict)
    door = manifest.write(tmp_path / "m-1/artifacts" / RELEASE, record, lambda _: None)
    ((_, facts),) = versions_in(tmp_path)
    assert facts == VersionFacts(
        *("t0002", "rex", "dog", 1, door.digest, False, ("too unlike",)), findings=(finding,)
    )
