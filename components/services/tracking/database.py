"""The SQLite file of a state folder: its address, made whole, set right when its folder moved.

MLflow makes the tables of a new database one by one, for seconds: a process that dies meanwhile
leaves a file that MLflow refuses for good, and two that begin at once stand in each other's way. So
a new one is made beside its place, under a lock, and gets its name when it is whole.
"""

import fcntl
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from components.services.store.home import Home
from components.services.tracking.home_files import location
from l2dm.errors import BadInput, TrackingFailed

WAIT = 60  # seconds that a locked or slow database is waited for
DRAFT = ".mlflow-"  # how a database that is being made is called
SET_ASIDE = "mlflow.db.half-made"

log = logging.getLogger(__name__)
State = Literal["whole", "half", "absent"]


def address(database: Path) -> str:
    """What MLflow and SQLAlchemy open this file by, whatever characters its path holds.

    Raises BadInput for a path that SQLAlchemy cannot be told.
    """
    from sqlalchemy.engine import URL, make_url

    plain = f"sqlite:///{database}?timeout={WAIT}"
    if make_url(plain).database == str(database):
        return plain
    # MLflow makes the folder of what stands behind `sqlite:///`, taken as it is
    url = URL.create("sqlite+pysqlite", database=str(database), query={"timeout": str(WAIT)})
    found = url.render_as_string()
    if make_url(found).database != str(database):
        raise BadInput(
            f"expected a state folder that a database address can name, found {database.parent}; "
            "rename it to letters, digits, - and _"
        )
    return found


def prepare(home: Home) -> None:
    """See that the home's database is there and whole, and that its files are found below the home.

    Safe for any number of processes at once. Raises TrackingFailed when the database is missing
    while versions of it lie in the home, or when its file is no database.
    """
    state = _state(home.database)
    if state == "absent" and (lines := _lines_with_files(home)):
        raise TrackingFailed(_missing(home, lines))
    if state != "whole":
        make(home)
    _relocate(home.database)


def make(home: Home) -> None:
    """Make the database unless it is there; one that was half made is set aside first."""
    if _state(home.database) == "whole":  # perhaps in a folder that cannot be written
        return
    with _locked(home):
        state = _state(home.database)
        if state == "whole":
            return
        if state == "half":
            aside = home.database.with_name(f"{SET_ASIDE}-{uuid.uuid4().hex[:8]}")
            os.replace(home.database, aside)
            log.warning("%s was half made and holds nothing: it is %s now", home.database, aside)
        for left in home.folder.glob(f"{DRAFT}*"):  # of processes that died: we hold the lock
            left.unlink(missing_ok=True)
        draft = home.folder / f"{DRAFT}{uuid.uuid4().hex}.db"
        try:
            _fill(draft)
            os.replace(draft, home.database)
        finally:
            for left in home.folder.glob(f"{draft.name}*"):  # SQLite's journal, too
                left.unlink(missing_ok=True)


def write_anew(database: Path) -> None:
    """Write the file again without what was deleted: SQLite keeps the bytes of deleted rows.

    Raises TrackingFailed, also where the disk has no room for a copy.
    """
    with _told(database), closing(_opened(database)) as connection:
        connection.execute("VACUUM")


def _fill(draft: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(address(draft), location(""))
    store.engine.dispose()
    with open(draft, "rb") as file:
        os.fsync(file.fileno())


def _state(database: Path) -> State:
    """Half made: without what MLflow writes last. Such a file holds no run and no version."""
    if not database.exists():
        return "absent"
    if not database.stat().st_size:
        return "half"
    with _told(database), closing(_opened(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"alembic_version", "experiments"} <= tables:
            return "half"
        (experiments,) = connection.execute("SELECT count(*) FROM experiments").fetchone()
        (revisions,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    return "whole" if experiments and revisions else "half"


def _relocate(database: Path) -> None:
    """Say of every file where it lies below the home, as a home of an earlier release did not.

    Such a home holds the whole path that it had when a line was begun. One that cannot be written
    stays as it is: what reads its files finds them all the same.
    """
    with _told(database), closing(_opened(database)) as connection:
        found = connection.execute(
            "SELECT experiment_id, name, artifact_location FROM experiments"
        ).fetchall()
        moves = [(str(one), *move) for one, *facts in found if (move := _move(*facts))]
        if not moves or not os.access(database, os.W_OK):
            return
        with connection:
            for experiment, before, after in moves:
                _replace_beginnings(connection, experiment, before, after)


def _move(name: str, place: str) -> tuple[str, str] | None:
    """Beginning of the locations of an experiment, and what it is to be."""
    line = name.removeprefix("l2dm/")
    if line != name and place.startswith(("file:", "/")) and place.endswith(f"/artifacts/{line}"):
        return place, location(line)
    if name == "Default" and place.startswith(("file:", "/")):
        return place, location("0")
    return None


def _replace_beginnings(
    connection: sqlite3.Connection, experiment: str, before: str, after: str
) -> None:
    places = (
        ("experiments", "artifact_location", "experiment_id = ?"),
        ("runs", "artifact_uri", "experiment_id = ?"),
        ("logged_models", "artifact_location", "experiment_id = ?"),
        (
            "model_versions",
            "storage_location",
            "run_id IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)",
        ),
    )
    for table, column, where in places:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE {where} AND substr({column}, 1, ?) = ?",
            (after, len(before) + 1, experiment, len(before), before),
        )


def _opened(database: Path) -> sqlite3.Connection:
    """An open file that exists; it is not made, and a read-only one is read."""
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", timeout=WAIT, uri=True)


@contextmanager
def _told(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:  # locked, a full disk, a disk that fails
        raise TrackingFailed(
            f"expected to read MLflow's database {database}, found: {error}; it is left as it is. "
            "Look for a process that holds it, for room and permissions, and run it again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise TrackingFailed(
            f"expected MLflow's database in {database}, found a file that is none ({error}); bring "
            "it back from a backup, or move it away and run `l2dm repair`"
        ) from error


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    """One process at a time; a kernel lock, dropped when its holder dies."""
    hidden = home.folder / ".store"
    hidden.mkdir(parents=True, exist_ok=True)
    with open(hidden / "database.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lines_with_files(home: Home) -> list[str]:
    """Lines of which versions lie in the home."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted({path.parent.parent.name for path in home.artifacts.glob("*/models/*")})
    return []


def _missing(home: Home, lines: list[str]) -> str:
    return (
        f"expected MLflow's database {home.database}, which names the versions of {lines}, found "
        f"none, while their files are in {home.artifacts}; bring it back from a backup, or run "
        "`l2dm repair`, which makes a new one from the files"
    )
