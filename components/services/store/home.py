"""Where the state of all lines lives: every path and key named once.

In the object store, which is the state folder itself or a bucket (`s3://bucket/prefix`):

inbox/<line>/<concept>/       uploads; concept.json commits one
records/<line>/000001.json    what happened, append-only
leases/<line>.json            who learns now
snapshots/<line>.json         sum of the records, worth time and nothing else
lines/<line>.json             what `l2dm status` shows, read off registry and records
runs/<line>/<concept>/        costs and error of the last run of a concept
reports/<line>.html           the latest report
untold/<line>/<task>/         what MLflow could not be told yet (tracking/untold.py)
bases/                        base models that were added (runtime/stored_bases.py)

On this machine, in the state folder, or beside a bucket in a scratch folder:

runs/<line>/<concept>/        log and doors of the last run of a concept
dispatched/<run>/             a dispatcher's runs: job, output, end
work/<line>/<concept>/        checkpoints of a running task, removed when it ended
cache/prior/                  class pictures per base
cache/bases/<key>/<name>/     base models of buckets (runtime/base_cache.py)
mlflow.db  artifacts/         tracking and registry, where no server is named

Nothing in it names a path of the machine: the folder may be moved, renamed and mounted elsewhere.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.services.store.objects import Objects
from components.services.store.open import SCHEME, open_objects
from l2dm.files.concept_json import SLUG

INBOX = "inbox/"
SCRATCH = "L2DM_SCRATCH"  # environment: the folder on this machine beside a bucket


@dataclass(frozen=True)
class Home:
    """folder: on this machine, absolute. bucket: where the store is, "" when it is the folder."""

    folder: Path
    bucket: str = ""

    @classmethod
    def at(cls, place: str | Path) -> "Home":
        """The home in a folder or in `s3://bucket/prefix`."""
        if not str(place).startswith(SCHEME):
            return cls(Path(place).expanduser().resolve())
        scratch = os.environ.get(SCRATCH)
        if scratch:
            return cls(Path(scratch).expanduser().resolve(), str(place))
        name = hashlib.sha256(str(place).encode()).hexdigest()[:12]
        return cls(Path("~/.cache/l2dm").expanduser() / name, str(place))

    @property
    def place(self) -> str:
        """What `at` was given, for another process."""
        return self.bucket or str(self.folder)

    @cached_property
    def store(self) -> Objects:
        """The object store."""
        return open_objects(self.place)

    @property
    def inbox(self) -> Path:
        """Uploads of every line, where the state is a folder."""
        return self.folder / "inbox"

    @property
    def prior_cache(self) -> Path:
        """Class pictures, kept over tasks and lines."""
        return self.folder / "cache" / "prior"

    @property
    def base_cache(self) -> Path:
        """Base models that this machine fetched from buckets."""
        return self.folder / "cache" / "bases"

    @property
    def artifacts(self) -> Path:
        """Files of the tracking server."""
        return self.folder / "artifacts"

    @property
    def database(self) -> Path:
        """MLflow's SQLite file."""
        return self.folder / "mlflow.db"

    def upload(self, line: str, concept: str) -> Path:
        """One upload, where the state is a folder."""
        return self.inbox / line / concept

    def run(self, line: str, concept: str) -> Path:
        """Log and doors of the last run of a concept."""
        return self.folder / "runs" / line / concept

    def run_key(self, line: str, concept: str) -> str:
        """Prefix of its costs and its error in the store."""
        return f"runs/{line}/{concept}/"

    def work(self, line: str, concept: str) -> Path:
        """Scratch of one upload: a killed run finds its checkpoints here again."""
        return self.folder / "work" / line / concept

    def report(self, line: str) -> str:
        """Key of the latest report of a line."""
        return f"reports/{line}.html"

    def lines(self) -> tuple[str, ...]:
        """Every line that has records or an upload, by name."""
        return self.names().lines

    def names(self) -> "Names":
        """The lines, and the folders beside them whose names no line can have."""
        inbox = self.store.folders(INBOX)
        found = sorted({*self.store.folders("records/"), *inbox})
        return Names(
            tuple(name for name in found if SLUG.fullmatch(name)),
            tuple(f"{INBOX}{name}" for name in inbox if not SLUG.fullmatch(name)),
        )


@dataclass(frozen=True)
class Names:
    """Lines by name. set_aside: keys of folders in the inbox whose names are no slug.

    Whoever may write to an inbox may have put them there. They are named to people, and reach no
    query and no path.
    """

    lines: tuple[str, ...]
    set_aside: tuple[str, ...]


def delete_folder(folder: Path) -> None:
    """Delete a folder, which may be gone already, where it matters that nothing of it is left.

    Raises OSError for what cannot be deleted, and for a link: what it leads to would stay.
    """

    def told(_call: object, _path: str, found: tuple[Any, BaseException, Any]) -> None:
        if not isinstance(found[1], FileNotFoundError):
            raise found[1]

    shutil.rmtree(folder, onerror=told)
