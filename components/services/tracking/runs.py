"""One run per task: parameters once, metric points once, pictures and files.

A step that is tried again finds its run by the task's key; parameters that are there are kept,
and a metric point (name, step) that is there is not logged again. `MlflowTracking` and its twin
`MemoryTracking` pass one contract suite.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from components.services.store.home import Home
from components.services.tracking.connection import connect, experiment, server, told

log = logging.getLogger(__name__)
Point = tuple[str, int, float]  # metric name, step, value
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
    """A run of the experiment `l2dm/<line>`, found again by the tag `l2dm.task_key`.

    One that somebody deletes meanwhile is followed by a new one, which holds what is told from then
    on; the deleted one holds the rest.
    """

    def __init__(self, home: Home, line: str, task: str) -> None:
        mlflow = connect(home)
        self._client = mlflow.MlflowClient()
        self._find = partial(run_of, mlflow, home, line, task)
        self.run_id = self._find()
        self._known: dict[str, set[int]] = {}

    def params(self, values: Mapping[str, Any]) -> None:
        """See Tracking."""
        from mlflow.entities import Param

        known = self._living().data.params
        fresh = [Param(name, str(value)) for name, value in values.items() if name not in known]
        for start in range(0, len(fresh), PARAMS):
            self._log(params=fresh[start : start + PARAMS])

    def tags(self, values: Mapping[str, str]) -> None:
        """See Tracking."""
        from mlflow.entities import RunTag

        self._log(tags=[RunTag(*item) for item in values.items()])

    def metrics(self, points: list[Point]) -> None:
        """See Tracking."""
        from mlflow.entities import Metric

        fresh = []
        for name, step, value in points:
            seen = self._steps(name)
            if step not in seen:
                seen.add(step)
                fresh.append(Metric(name, float(value), int(time.time() * 1000), step))
        for start in range(0, len(fresh), BATCH):
            self._log(metrics=fresh[start : start + BATCH])

    def file(self, path: Path, under: str) -> None:
        """See Tracking."""
        self._living()  # a deleted run takes files without a word
        self._client.log_artifact(self.run_id, str(path), under or None)

    def finish(self, state: str) -> None:
        """See Tracking."""
        self._living()
        self._client.set_terminated(self.run_id, state)

    def _log(self, **batch: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(self.run_id, **batch)
        except MlflowException:
            deleted, run = self.run_id, self._living().info.run_id
            if run == deleted:
                raise
            self._client.log_batch(run, **batch)

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


def run_of(mlflow: Any, home: Home, line: str, task: str) -> str:
    """The run of a task: KFP's own (MLFLOW_RUN_ID) if set, the one with its key, or a new one."""
    given = os.environ.get("MLFLOW_RUN_ID")
    if given:
        return given
    client = mlflow.MlflowClient()
    where, key = experiment(mlflow, home, line), f"{line}/{task}"
    found = client.search_runs([where], f"tags.`l2dm.task_key` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {"l2dm.task_key": key, "l2dm.line": line, "mlflow.runName": task}
    return str(client.create_run(where, tags=tags, run_name=task).info.run_id)


def close(home: Home, line: str, task: str, state: str) -> None:
    """Close the run of a task that became no version: "FAILED" or "KILLED"; none is made for it.

    One that is closed already stays as it is. Raises TrackingFailed.
    """
    if server() is None and not home.database.exists():
        return
    mlflow = connect(home)
    with told(f"close the run of task {task} of line {line!r}"):
        client = mlflow.MlflowClient()
        where = client.get_experiment_by_name(f"l2dm/{line}")
        if where is None:
            return
        key = f"tags.`l2dm.task_key` = '{line}/{task}'"
        for run in client.search_runs([where.experiment_id], key):
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, state)
