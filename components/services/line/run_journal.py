"""What a step leaves behind for whoever started it: progress lines, costs, and its error.

Progress goes to standard output as one JSON object per line behind a mark, because the runner
passes a step's output on line by line. Costs and errors are objects, because the runner tells only
that a step failed, not why.
"""

import json
import logging
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.services.store.objects import Objects
from l2dm import redaction
from l2dm.errors import NoSuchObject, is_of_the_house
from l2dm.files import children

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepProgress:
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

    @property
    def of_the_house(self) -> bool:
        """Whether disks, servers or stored files are to blame, and no upload."""
        return is_of_the_house(self.kind)


def say(progress: StepProgress) -> None:
    """Pass one progress line to whoever started this step."""
    children.print_progress(progress)


def heard(line: str) -> StepProgress | None:
    """The progress that a line of output holds; None for any other line."""
    return children.parse_progress(line, StepProgress)


def peak_mb() -> float:
    """Peak resident memory so far, MB, of this process or of the largest that it started.

    ru_maxrss is in KiB on Linux.
    """
    scale = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) * scale / 1e6


def write_cost(store: Objects, run: str, step: str, cost: Cost) -> None:
    """Leave the cost of one step. run: key of the run's folder, ends with a slash."""
    _write(store, f"{run}cost-{step}.json", asdict(cost))


def read_costs(store: Objects, run: str) -> dict[str, Cost]:
    """Costs of the steps that ended well, by step, in the order in which they ended."""
    entries = sorted(store.list(f"{run}cost-"), key=lambda entry: (entry.modified, entry.key))
    names = [entry.key.removeprefix(f"{run}cost-").removesuffix(".json") for entry in entries]
    found = {name: _cost(store, entry.key) for name, entry in zip(names, entries, strict=True)}
    return {name: cost for name, cost in found.items() if cost is not None}


def _cost(store: Objects, key: str) -> Cost | None:
    """One cost; None where it is damaged: figures are worth no run."""
    try:
        return Cost(**json.loads(store.read(key).data))
    except (ValueError, TypeError, RecursionError, NoSuchObject) as error:
        log.warning("%s is no cost of a step (%s)", key, error)
        return None


def write_failure(store: Objects, run: str, step: str, error: BaseException) -> None:
    """Leave why a step failed."""
    facts = redaction.in_data(children.error_to_json(error))
    _write(store, f"{run}error.json", {"step": step, **facts})


def read_failure(store: Objects, run: str) -> Failure | None:
    """Why the last run failed; None when no step said so.

    A step that failed, was repeated by the platform and then ended well is not why.
    """
    try:
        data = json.loads(store.read(f"{run}error.json").data)
        failure = Failure(data["step"], data["kind"], tuple(data["problems"]))
    except NoSuchObject:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as damaged:
        log.warning("%serror.json says nothing of an error (%s)", run, damaged)
        return None
    written = {entry.key: entry.modified for entry in store.list(run)}
    cost, error = f"{run}cost-{data['step']}.json", f"{run}error.json"
    if written.get(cost, 0.0) > written.get(error, 0.0):
        return None
    return failure


def forget(store: Objects, run: str) -> None:
    """Remove what an earlier run of the same upload left."""
    for key in (*(entry.key for entry in store.list(f"{run}cost-")), f"{run}error.json"):
        store.delete(key)


def _write(store: Objects, key: str, data: Mapping[str, Any]) -> None:
    store.write(key, json.dumps(dict(data), indent=1).encode())
