"""What could not be told of a task: kept in the store, and told again by whoever reaches MLflow.

To tell is never a reason for a step to fail: what it made is worth hours, a curve on a page is not.
So a call that MLflow refuses, or that it does not answer, is kept with the reason. `l2dm status`
shows the reason until the call was told.

untold/<line>/<task>/<step>.json    the calls of a step, in their order, and why they were not told
"""

import base64
import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from components.services.store.objects import Objects
from components.services.tracking.runs import Point, Tracking, given_run
from l2dm.errors import L2dmError, NoSuchObject, TrackingFailed

FOLDER = "untold/"
PAUSE, LONGEST_PAUSE = 60.0, 900.0  # seconds before an MLflow that did not answer is asked again
TRIED = (L2dmError, OSError)  # what telling may raise; all of it is kept for later
NO_CALLS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # damaged ones

log = logging.getLogger(__name__)
Call = tuple[str, dict[str, Any]]  # method of Tracking, its arguments as JSON holds them


@dataclass(frozen=True)
class Untold:
    """Calls of one step that were not told. why: the first reason."""

    task: str
    step: str
    why: str

    def __str__(self) -> str:
        return f"{self.task} {self.step}: MLflow was not told everything: {self.why}"


class PatientTracking:
    """A task's run, told now or later: no method raises for what MLflow does.

    opened: the run; asked for when something is told, because that may fail, too. clock: seconds.
    """

    def __init__(
        self, opened: Callable[[], Tracking], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._opened, self._clock = opened, clock
        self._tracking: Tracking | None = None
        self._waiting: list[Call] = []
        self._refused: list[Call] = []
        self._deaf, self._pause = float("-inf"), PAUSE
        self.why = ""

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracking."""
        self._tell("params", {"values": {name: str(value) for name, value in values.items()}})

    def tags(self, values: Mapping[str, str]) -> None:
        """See Tracking."""
        self._tell("tags", {"values": dict(values)})

    def metrics(self, points: list[Point]) -> None:
        """See Tracking."""
        self._tell("metrics", {"points": [list(point) for point in points]})

    def file(self, path: Path, under: str) -> None:
        """See Tracking."""
        data = base64.b64encode(path.read_bytes()).decode()
        self._tell("file", {"name": path.name, "data": data, "under": under})

    def finish(self, state: str) -> None:
        """See Tracking."""
        self._tell("finish", {"state": state})

    def keep(self, store: Objects, line: str, task: str, step: str) -> None:
        """Leave in the store what was not told, after a last try. Raises what the store raises."""
        self._try()
        if left := self._refused + self._waiting:
            key = f"{FOLDER}{line}/{task}/{step}-{uuid.uuid4().hex[:8]}.json"
            _write(store, key, {"why": self.why, "run": given_run(), "calls": left})
            log.warning("%s %s: MLflow is told later: %s", line, task, self.why)
            self._refused, self._waiting = [], []

    def _tell(self, method: str, arguments: dict[str, Any]) -> None:
        self._waiting.append((method, arguments))
        if self._clock() >= self._deaf:
            self._try()

    def _try(self) -> None:
        """Tell what waits, in its order, until MLflow does not answer."""
        while self._waiting:
            try:
                self._tracking = self._tracking or self._opened()
                replay(self._tracking, self._waiting[0])
            except TRIED as error:
                log.warning("MLflow was not told: %s", error)
                self.why = self.why or str(error)
                if not getattr(error, "refused", False):
                    self._deaf = self._clock() + self._pause
                    self._pause = min(2 * self._pause, LONGEST_PAUSE)
                    return
                self._refused.append(self._waiting[0])  # the others do not wait for it
            self._waiting.pop(0)


def replay(tracking: Tracking, call: Call) -> None:
    """Tell one call. Raises what the tracking raises, ValueError for what is no call."""
    method, given = call
    match method:
        case "params":
            tracking.params(given["values"])
        case "tags":
            tracking.tags(given["values"])
        case "metrics":
            points = [(name, int(step), float(value)) for name, step, value in given["points"]]
            tracking.metrics(points)
        case "file":
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / PurePath(given["name"]).name
                path.write_bytes(base64.b64decode(given["data"]))
                tracking.file(path, given["under"])
        case "finish":
            tracking.finish(given["state"])
        case _:
            raise ValueError(f"expected a call of Tracking, found {method!r}")


def untold(store: Objects, line: str) -> tuple[Untold, ...]:
    """What MLflow has still to be told of a line. Costs a listing where that is nothing."""
    found = []
    for entry in store.list(f"{FOLDER}{line}/"):
        task, _, step = entry.key.removeprefix(f"{FOLDER}{line}/").partition("/")
        with suppress(NoSuchObject, *NO_CALLS):
            why = str(json.loads(store.read(entry.key).data)["why"])
            found.append(Untold(task, step.rpartition("-")[0], why))
    return tuple(found)


def tell_again(store: Objects, line: str, opened: Callable[[str, str], Tracking]) -> None:
    """Tell what is left of earlier steps of a line.

    opened: the run of a task; with the id of KFP's own run if the step told of it there, or "".

    What fails again stays. Of two that do this at once both tell the same: a run takes it once.
    """
    for entry in store.list(f"{FOLDER}{line}/"):
        task = entry.key.removeprefix(f"{FOLDER}{line}/").partition("/")[0]
        try:
            data = json.loads(store.read(entry.key).data)
            left = _left(opened(task, str(data.get("run", ""))), data["calls"])
        except NoSuchObject:  # another process told it
            continue
        except TRIED as error:
            log.warning("line %s: MLflow is told of %s later: %s", line, task, error)
            return
        except NO_CALLS as error:
            log.warning("line %s: %s holds no calls (%s); it is left", line, entry.key, error)
            continue
        if not left:
            store.delete(entry.key)
        elif len(left) < len(data["calls"]):
            _write(store, entry.key, {**data, "calls": left})


def _left(tracking: Tracking, calls: list[Call]) -> list[Call]:
    """Tell them; those that are refused again. Raises what keeps MLflow from answering."""
    refused = []
    for call in calls:
        try:
            replay(tracking, call)
        except TrackingFailed as error:
            if not error.refused:
                raise
            refused.append(call)
    return refused


def _write(store: Objects, key: str, data: Mapping[str, Any]) -> None:
    store.write(key, json.dumps(dict(data)).encode())
