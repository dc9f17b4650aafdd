"""Where a line's state lives on this machine: one folder, every path named once.

inbox/<line>/<concept>/       uploads; concept.json commits one
records/<line>/000001-*.json  what happened, append-only
lines/<line>.json             projection of registry and records for `l2dm status`
leases/<line>.json            who learns now
runs/<line>/<concept>/        log, costs and error of the last run of a concept
dispatched/<run>/             a dispatcher's runs: job, output, end
work/<line>/<concept>/        checkpoints of a running task, removed when it ended
cache/prior/                  class pictures per base
reports/<line>.html           the latest report
mlflow.db  artifacts/         tracking and registry
"""

from dataclasses import dataclass
from pathlib import Path

from components.services.objects import FolderObjects, Objects


@dataclass(frozen=True)
class Home:
    """The state folder; `at` makes it absolute because steps run in other processes."""

    folder: Path

    @classmethod
    def at(cls, folder: str | Path) -> "Home":
        """The state folder at this path, absolute."""
        return cls(Path(folder).expanduser().resolve())

    @property
    def inbox(self) -> Path:
        """Uploads of every line."""
        return self.folder / "inbox"

    @property
    def prior_cache(self) -> Path:
        """Class pictures, kept over tasks and lines."""
        return self.folder / "cache" / "prior"

    @property
    def artifacts(self) -> Path:
        """Files of the tracking server."""
        return self.folder / "artifacts"

    @property
    def database(self) -> Path:
        """MLflow's SQLite file."""
        return self.folder / "mlflow.db"

    @property
    def store(self) -> Objects:
        """Records and leases: this folder as an object store."""
        return FolderObjects(self.folder)

    def projection(self, line: str) -> Path:
        """The light index of a line that `l2dm status` reads."""
        return self.folder / "lines" / f"{line}.json"

    def upload(self, line: str, concept: str) -> Path:
        """One upload."""
        return self.inbox / line / concept

    def run(self, line: str, concept: str) -> Path:
        """Log, costs and error of the last run of a concept."""
        return self.folder / "runs" / line / concept

    def work(self, line: str, concept: str) -> Path:
        """Scratch of one upload: a killed run finds its checkpoints here again."""
        return self.folder / "work" / line / concept

    def report(self, line: str) -> Path:
        """The latest report of a line."""
        return self.folder / "reports" / f"{line}.html"

    def lines(self) -> tuple[str, ...]:
        """Every line that has records, an upload or a projection, by name."""
        roots = (self.folder / "records", self.inbox)
        names = {path.name for root in roots if root.is_dir() for path in root.iterdir()}
        names |= {path.stem for path in (self.folder / "lines").glob("*.json")}
        return tuple(sorted(name for name in names if not name.startswith(".")))
