"""What a step leaves behind for whoever started it: progress lines, costs, and its error.

Progress goes to standard output as one JSON object per line behind a mark, because the runner
passes a step's output on line by line. Costs and errors are files, because the runner tells only
that a step failed, not why.
"""

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l2dm.errors import BadInput
from l2dm.manifest import write_text

MARK = "l2dm|"


@dataclass(frozen=True)
class Progress:
    """One line of a step: `done` of `total` units (0 of 0 where a step has none), and a text."""

    step: str
    text: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Cost:
    """Seconds of the step's own work, without imports and process start; peak memory in MB."""

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Failure:
    """Why a step ended without its outputs. `kind` is the exception's class name."""

    step: str
    kind: str
    problems: tuple[str, ...]


def say(progress: Progress) -> None:
    """Pass one progress line to whoever started this step."""
    sys.stdout.write(f"{MARK}{json.dumps(asdict(progress))}\n")
    sys.stdout.flush()


def heard(line: str) -> Progress | None:
    """The progress that a line of output holds; None for any other line."""
    _, mark, text = line.partition(MARK)
    if not mark:
        return None
    try:
        return Progress(**json.loads(text))
    except (json.JSONDecodeError, TypeError):
        return None


def peak_mb() -> float:
    """Peak resident memory of this process so far, MB (ru_maxrss is in KiB on Linux)."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def write_cost(folder: Path, step: str, cost: Cost) -> None:
    """Leave the cost of one step."""
    _write(folder / f"cost-{step}.json", asdict(cost))


def read_costs(folder: Path) -> dict[str, Cost]:
    """Costs of the steps that ended well, by step, in the order in which they ended."""
    paths = sorted(folder.glob("cost-*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = {path.stem.removeprefix("cost-"): json.loads(path.read_text()) for path in paths}
    return {step: Cost(**cost) for step, cost in found.items()}


def write_failure(folder: Path, step: str, error: BaseException) -> None:
    """Leave why a step failed."""
    problems = error.problems if isinstance(error, BadInput) else (str(error) or repr(error),)
    _write(folder / "error.json", asdict(Failure(step, type(error).__name__, problems)))


def read_failure(folder: Path) -> Failure | None:
    """Why the last run failed; None when no step said so."""
    path = folder / "error.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return Failure(data["step"], data["kind"], tuple(data["problems"]))


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(dict(data), indent=1))
