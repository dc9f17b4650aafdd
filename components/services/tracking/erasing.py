"""Versions and runs of a line are deleted from MLflow for good: files, rows, what rows leave.

MLflow marks what is deleted and keeps it; its own `mlflow gc` removes it. In a state folder that
is done here, and the database's file is written anew, because SQLite keeps deleted bytes. Behind a
server the files go, and the rows are marked: `mlflow gc` there is for whoever runs it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from components.services.store.home import Home, delete_folder
from components.services.tracking import database, home_files
from components.services.tracking.connection import server
from components.services.tracking.runs import TASK_KEY, runs_elsewhere

log = logging.getLogger(__name__)
PAGE = 100
CHECKS = "checks"  # the run of all checks of a line
Names = Callable[[str], bool]


class Eraser:
    """One line in MLflow. names: whether a text names what is erased."""

    def __init__(self, home: Home, mlflow: Any, line: str, names: Names) -> None:
        self._home, self._mlflow, self._line, self._names = home, mlflow, line, names
        self._client = mlflow.MlflowClient()
        self._name = f"l2dm.{line}"

    def erase(self, versions: Sequence[int]) -> None:
        """Files first, the versions' rows last: what was stopped is found again by a repeat."""
        found = self._client.get_experiment_by_name(f"l2dm/{self._line}")
        if found is None:
            return
        there = {int(one.version): one for one in self._versions()}
        gone = [there[number] for number in versions if number in there]
        kept = [one for number, one in there.items() if number not in versions]
        tasks = {one.tags.get("l2dm.task", "") for one in gone}
        self._erase_models(found.experiment_id, {model_id(one) for one in kept})
        self._erase_runs(found.experiment_id, tasks)
        for version in gone:
            for tag in version.tags:
                self._client.delete_model_version_tag(self._name, version.version, tag)
            self._client.delete_model_version(self._name, version.version)
        if server() is None:
            self._purge(found.experiment_id)

    def _versions(self) -> list[Any]:
        return list(self._client.search_model_versions(f"name = '{self._name}'"))

    def _erase_models(self, experiment: str, kept: set[str]) -> None:
        """Every logged model that is no version which stays: one of a killed run may hold it."""
        for model in self._paged(self._client.search_logged_models, [experiment]):
            if str(model.model_id) not in kept:
                self._delete_files(model.artifact_location)
                self._client.delete_logged_model(model.model_id)

    def _erase_runs(self, experiment: str, tasks: set[str]) -> None:
        """Runs of those tasks, of checks, and whatever names it; the others lose their report."""
        from mlflow.entities import ViewType

        keys = {f"{self._line}/{task}" for task in (*tasks, CHECKS)}
        own = self._paged(self._client.search_runs, [experiment], run_view_type=ViewType.ALL)
        for run in (*own, *runs_elsewhere(self._client, self._line)):
            if run.data.tags.get(TASK_KEY) in keys or self._mentions(run):
                self._delete_files(run.info.artifact_uri)
                if run.info.lifecycle_stage == "active":
                    self._untag(run)
                    self._client.delete_run(run.info.run_id)
            else:
                self._delete_files(run.info.artifact_uri, f"{self._line}.html")

    def _untag(self, run: Any) -> None:
        """Take off what names it; the tag by which a repeat finds the run names its task only."""
        for tag, value in run.data.tags.items():
            if tag != TASK_KEY and self._names(f"{tag} {value}"):
                self._client.delete_tag(run.info.run_id, tag)

    def _mentions(self, run: Any) -> bool:
        data = run.data
        texts = [*data.tags.values(), *data.params.values(), *data.params, *data.metrics]
        return any(self._names(str(text)) for text in texts)

    def _delete_files(self, uri: str, name: str = "") -> None:
        """All files at a location, or the one of that name there."""
        if server() is None:
            folder = home_files.folder_of(self._home, uri, self._line)
            if name:
                (folder / name).unlink(missing_ok=True)
            else:
                delete_folder(folder.parent)
            return
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(uri)
        if not name or name in {one.path for one in repository.list_artifacts()}:
            repository.delete_artifacts(name or None)

    def _purge(self, experiment: str) -> None:
        """What MLflow only marks as deleted, of this line; then the file without what it held."""
        from mlflow.entities import ViewType
        from mlflow.tracking._tracking_service.utils import _get_store

        store = _get_store()
        deleted = self._paged(
            self._client.search_runs, [experiment], run_view_type=ViewType.DELETED_ONLY
        )
        for run in list(deleted):
            store._hard_delete_run(run.info.run_id)
        for model in store._get_deleted_logged_models():
            if store.get_logged_model(model, allow_deleted=True).experiment_id == experiment:
                store._hard_delete_logged_model(model)
        database.write_anew(self._home.database)

    def _paged(self, search: Callable[..., Any], *given: Any, **more: Any) -> Iterator[Any]:
        token: str | None = None
        found = []
        while True:
            page = search(*given, **more, max_results=PAGE, page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return iter(found)


def model_id(version: Any) -> str:
    """Id of the logged model that a version is: MLflow's own database keeps it as its source."""
    return str(version.source.rpartition("/")[2])
