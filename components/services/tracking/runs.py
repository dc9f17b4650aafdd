"""One run per task: parameters once, metric points once, pictures and files.

A step that is tried again finds its run by the task's key; parameters that are there are kept,
and a metric point (name, step) that is there is not logged again. `MlflowTracking` and its twin
`MemoryTracking` pass one contract suite.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from components.services.store.home import Home
from components.services.tracking import names
from components.services.tracking.connection import (
    REFUSALS,
    connect,
    experiment,
    server,
    told,
)

log = logging.getLogger(__name__)
Point = tuple[str, int, float]  # metric name, step, value
OLDEST = ["attributes.start_time ASC", "attributes.run_id ASC"]
TASK_KEY, LINE = "l2dm.task_key", "l2dm.line"  # tags by which the runs of a task are found
BATCH, PARAMS = 1000, 100  # points and parameters per request, MLflow's limits


class Tracking(Protocol):
    """What a step tells about its task."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the task; the first value of a name stays."""
        ...

    def tags(self, values: Mapping[str, str]) -> None:
        """Marks of the task; the last value of a name stays."""
        ...

    def metrics(self, points: list[Point]) -> None:
        """Metric points; a (name, step) that is there already is left as it is."""
        ...

    def file(self, path: Path, under: str) -> None:
        """A file of the task, shown in the folder `under`."""
        ...

    def finish(self, state: str) -> None:
        """Close the run: "FINISHED" or "FAILED"."""
        ...


@dataclass
class MemoryTracking:
    """The twin: everything stays in this object."""

    seen_params: dict[str, str] = field(default_factory=dict)
    seen_tags: dict[str, str] = field(default_factory=dict)
    seen_points: dict[tuple[str, int], float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "RUNNING"

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracking."""
        for name, value in values.items():
            self.seen_params.setdefault(name, str(value))

    def tags(self, values: Mapping[str, str]) -> None:
        """See Tracking."""
        self.seen_tags.update(values)

    def metrics(self, points: list[Point]) -> None:
        """See Tracking."""
        for name, step, value in points:
            self.seen_points.setdefault((name, step), value)

    def file(self, path: Path, under: str) -> None:
        """See Tracking."""
        self.files[f"{under}/{path.name}".lstrip("/")] = path.read_bytes()

    def finish(self, state: str) -> None:
        """See Tracking."""
        self.state = state


class MlflowTracking:
    """A run of the experiment `l2dm/<line>`, found again by its tag TASK_KEY; or KFP's own.

    One that somebody deletes meanwhile is followed by a new one, which holds what is told from then
    on; the deleted one holds the rest.
    """

    def __init__(self, home: Home, line: str, task: str, run: str | None = None) -> None:
        """run: see `run_of`."""
        mlflow = connect(home)
        self._client, self._what = mlflow.MlflowClient(), f"task {task} of line {line!r}"
        self._find = partial(run_of, mlflow, home, line, task, run)
        with told(f"open the run of {self._what}"):
            self.run_id = self._find()
        self._known: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracking."""
        from mlflow.entities import Param

        with told(f"take the settings of {self._what}"):
            known = self._living().data.params
            named = {names.key(name): names.param(value) for name, value in values.items()}
            fresh = [Param(*item) for item in named.items() if item[0] not in known]
            self._log("params", fresh, PARAMS)

    def tags(self, values: Mapping[str, str]) -> None:
        """See Tracking."""
        from mlflow.entities import RunTag

        with told(f"take marks of {self._what}"):
            found = [RunTag(names.key(name), names.tag(value)) for name, value in values.items()]
            self._log("tags", found, PARAMS)

    def metrics(self, points: list[Point]) -> None:
        """See Tracking."""
        from mlflow.entities import Metric

        with told(f"take metrics of {self._what}"):
            now, fresh = int(time.time() * 1000), dict[tuple[str, int], Metric]()
            for name, step, value in points:
                key = names.key(name)
                if step not in self._steps(key):
                    fresh.setdefault((key, step), Metric(key, float(value), now, step))
            self._log("metrics", [*fresh.values()], BATCH)

    def file(self, path: Path, under: str) -> None:
        """See Tracking."""
        with told(f"take {path.name!r} of {self._what}"):
            self._living()  # a deleted run takes files without a word
            name, folder = names.file(path.name), names.key(under) if under else None
            if name == path.name:
                self._client.log_artifact(self.run_id, str(path), folder)
                return
            with tempfile.TemporaryDirectory() as scratch:
                named = shutil.copyfile(path, Path(scratch) / name)
                self._client.log_artifact(self.run_id, str(named), folder)

    def finish(self, state: str) -> None:
        """See Tracking."""
        with told(f"end {self._what}"):
            self._living()
            self._client.set_terminated(self.run_id, state)

    def _log(self, kind: str, values: list[Any], most: int) -> None:
        """Tell them in requests of so many; one that is refused is told apart from the others."""
        refused = []
        for start in range(0, len(values), most):
            refused += self._send(kind, values[start : start + most])
        if refused:
            raise refused[0]

    def _send(self, kind: str, values: list[Any]) -> list[Exception]:
        """One request, or its halves until only what is refused is left out; why it was refused."""
        from mlflow.exceptions import MlflowException

        try:
            self._request(kind, values)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if len(values) == 1:
                return [error]
            half = len(values) // 2
            return self._send(kind, values[:half]) + self._send(kind, values[half:])
        if kind == "metrics":
            for one in values:
                self._known[one.key].add(one.step)
        return []

    def _request(self, kind: str, values: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(self.run_id, **{kind: values})
        except MlflowException:
            deleted, run = self.run_id, self._living().info.run_id
            if run == deleted:
                raise
            self._known.update({one.key: set() for one in values if kind == "metrics"})
            self._client.log_batch(run, **{kind: values})

    def _living(self) -> Any:
        """The run, or the one that follows it when somebody deleted it."""
        found = self._run()
        if found is None:
            deleted, self.run_id, self._known = self.run_id, self._find(), {}
            log.warning("run %s was deleted: %s takes its place", deleted, self.run_id)
            found = self._client.get_run(self.run_id)
        return found

    def _run(self) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _steps(self, name: str) -> set[int]:
        """Steps of this metric that the store holds; asked once, then kept up to date here."""
        if name not in self._known:
            history = self._client.get_metric_history(self.run_id, name)
            self._known[name] = {int(point.step) for point in history}
        return self._known[name]


def given_run() -> str:
    """KFP's own run, in which this process tells of its task; "" where there is none."""
    return os.environ.get("MLFLOW_RUN_ID", "")


def run_of(mlflow: Any, home: Home, line: str, task: str, given: str | None = None) -> str:
    """The run of a task: the given one, by default KFP's own, the one with its key, or a new one.

    Of two that make one at once the older one stays. A given one is marked, so that whoever closes
    the task, files something with it, or erases it finds it in KFP's experiment.
    """
    client, marks = mlflow.MlflowClient(), {TASK_KEY: f"{line}/{task}", LINE: line}
    if run := given_run() if given is None else given:
        for name, value in marks.items():
            client.set_tag(run, name, value)
        return run
    where, ours = experiment(mlflow, home, line), _with_key(line, task)
    if found := client.search_runs([where], ours, max_results=1, order_by=OLDEST):
        return str(found[0].info.run_id)
    tags = marks | {"mlflow.runName": task}
    made = str(client.create_run(where, tags=tags, run_name=task).info.run_id)
    (first,) = client.search_runs([where], ours, max_results=1, order_by=OLDEST)
    if first.info.run_id != made:
        client.delete_run(made)
    return str(first.info.run_id)


def close(home: Home, line: str, task: str, state: str) -> None:
    """Close the run of a task that became no version: "FAILED" or "KILLED"; none is made for it.

    One that is closed already stays as it is. Raises TrackingFailed.
    """
    if server() is None and not home.database.exists():
        return
    client = connect(home).MlflowClient()
    with told(f"close the run of task {task} of line {line!r}"):
        for run in runs_of(client, line, task):
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, state)


def file(home: Home, line: str, task: str, path: Path) -> None:
    """Put a file into the run of a task, if there is one. Raises TrackingFailed."""
    if server() is None and not home.database.exists():
        return
    client = connect(home).MlflowClient()
    with told(f"take {path.name} for task {task} of line {line!r}"):
        for run in runs_of(client, line, task):
            client.log_artifact(run.info.run_id, str(path))


def runs_of(client: Any, line: str, task: str) -> list[Any]:
    """The runs of a task that are there: its own, or KFP's own, one for each step; or none."""
    if not task:
        return []
    own = client.get_experiment_by_name(f"l2dm/{line}")
    places = [own.experiment_id] if own else []
    if found := places and client.search_runs(places, _with_key(line, task)):
        return list(found)
    others = _experiments(client) if server() else []
    return list(client.search_runs(others, _with_key(line, task))) if others else []


def runs_elsewhere(client: Any, line: str) -> list[Any]:
    """KFP's own runs in which steps of a line told of its tasks."""
    if server() is None:
        return []
    own = client.get_experiment_by_name(f"l2dm/{line}")
    places = [one for one in _experiments(client) if own is None or one != own.experiment_id]
    found, token = list[Any](), None
    while places:
        page = client.search_runs(places, f"tags.`{LINE}` = '{line}'", page_token=token)
        found, token = [*found, *page], page.token
        if not token:
            break
    return found


def _experiments(client: Any) -> list[str]:
    """Ids of all experiments of a server: KFP's own may be called anything."""
    found, token = list[str](), None
    while True:
        page = client.search_experiments(page_token=token)
        found, token = [*found, *(one.experiment_id for one in page)], page.token
        if not token:
            return found


def _with_key(line: str, task: str) -> str:
    return f"tags.`{TASK_KEY}` = '{line}/{task}'"
