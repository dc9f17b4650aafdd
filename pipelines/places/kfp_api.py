"""What runs need of Kubeflow Pipelines: runs, experiments and pipeline versions, by name.

The server does not notice that it was asked twice, so nothing is made without being looked for
first, and where an answer was lost it is looked for again.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from l2dm.errors import PlatformError
from pipelines.places.kfp_client import Connection, Missing
from pipelines.places.settings import NOUN

PAGE = 100  # objects of a listing at once


@dataclass(frozen=True)
class Run:
    """A run as the server tells of it. state: one of V2beta1RuntimeState, "" when it is new."""

    id: str
    state: str
    created: str
    parameters: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class KfpApi:
    """One Kubeflow Pipelines. Every method raises PlatformError."""

    def __init__(self, connection: Connection) -> None:
        self._to, self._cluster = connection, connection.cluster

    def check(self) -> None:
        """Ask for what every dispatch needs: an answer, and the right to see runs."""
        health = self._to.ask("health", lambda: self._client.get_kfp_healthz())
        if getattr(health, "multi_user", False) and not self._cluster.namespace:
            raise PlatformError(
                f"expected cluster.namespace in {NOUN}, because {self._cluster.host} has many "
                "users, found none; name the namespace whose runs these are"
            )
        self._to.ask("runs", lambda: self._client.list_runs(page_size=1, **self._where))

    def page(self, run: Run) -> str:
        """Where a person sees a run."""
        return f"{self._cluster.host}/#/runs/details/{run.id}"

    def runs(self, name: str) -> tuple[Run, ...]:
        """Every run of that name, the oldest first."""
        found = self._named("runs", name, "list_runs", **self._where)
        return tuple(sorted(map(_run, found), key=lambda run: (run.created, run.id)))

    def submit(
        self, name: str, experiment: str, version: tuple[str, str], arguments: dict[str, Any]
    ) -> None:
        """Make a run unless there is one of that name. version: ids of pipeline and version."""
        self._to.ensure(
            f"run {name!r}",
            lambda: self.runs(name) or None,
            lambda: self._client.run_pipeline(
                experiment,
                name,
                params=arguments,
                **self._made_of(version),
            ),
        )

    def terminate(self, run: Run) -> None:
        """End a run; no error when it is not there."""
        try:
            self._to.ask(f"end of run {run.id}", lambda: self._client.terminate_run(run.id))
        except Missing:
            return

    def repeat(
        self,
        name: str,
        experiment: str,
        version: tuple[str, str],
        cron: str,
        arguments: dict[str, Any],
    ) -> bool:
        """Have one recurring run of that name that does this; whether it was not there before.

        cron: six fields, seconds first. A run that takes longer than until the next instant keeps
        that one waiting; instants that were missed are not made up for. Others of that name are
        removed once it is there; of two that were made at once the first stays.
        """
        before = {str(one.recurring_run_id) for one in self._repeated(name)}

        def find() -> dict[str, Any]:
            # a server that does not show what a recurring run is made of shows a new one
            return {
                number: one
                for one in self._repeated(name)
                if (number := str(one.recurring_run_id)) not in before
                or self._does(one, version, cron, arguments)
            }

        found = self._to.ensure(
            f"recurring run {name!r}",
            lambda: find() or None,
            lambda: self._client.create_recurring_run(
                experiment,
                name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=arguments,
                **self._made_of(version),
            ),
        )
        kept = min(found, key=lambda number: (_created(found[number]), number))
        self._end(name, (before | found.keys()) - {kept})
        return kept not in before

    def end_repeating(self, name: str) -> None:
        """Remove every recurring run of that name; no error when there is none."""
        self._end(name, [str(one.recurring_run_id) for one in self._repeated(name)])

    def _end(self, name: str, numbers: Iterable[str]) -> None:
        for number in numbers:
            try:
                self._to.ask(name, partial(self._client.delete_recurring_run, number))
            except Missing:
                continue

    def _made_of(self, version: tuple[str, str]) -> dict[str, str | None]:
        """What every run is made of, whoever starts it."""
        return {
            "pipeline_id": version[0],
            "version_id": version[1],
            "pipeline_root": self._cluster.pipeline_root or None,
            "service_account": self._cluster.service_account or None,
        }

    def _repeated(self, name: str) -> list[Any]:
        """The recurring runs of that name."""
        return self._named("recurring_runs", name, "list_recurring_runs", **self._where)

    def _does(
        self, one: Any, version: tuple[str, str], cron: str, arguments: dict[str, Any]
    ) -> bool:
        """Whether a recurring run does what is wanted, as far as we say it."""
        of, config = one.pipeline_version_reference, one.runtime_config
        clock = one.trigger and one.trigger.cron_schedule
        root, account = self._cluster.pipeline_root, self._cluster.service_account
        return bool(
            of
            and (str(of.pipeline_id), str(of.pipeline_version_id)) == version
            and clock
            and clock.cron == cron
            and config
            and dict(config.parameters or {}) == arguments
            and (not root or config.pipeline_root == root)
            and (not account or one.service_account == account)
        )

    def experiment(self, name: str) -> str:
        """Id of an experiment, made if need be."""
        found = self._ensured(
            "experiments",
            name,
            lambda: self._client.create_experiment(name, namespace=self._cluster.namespace or None),
            "list_experiments",
            **self._where,
        )
        return str(found.experiment_id)

    def version(self, package: Path, pipeline: str, name: str) -> tuple[str, str]:
        """Ids of a pipeline and of its version of that name, uploaded if need be."""
        path, namespace = str(package), self._cluster.namespace or None
        whole = self._ensured(
            "pipelines",
            pipeline,
            lambda: self._client.upload_pipeline(path, pipeline, namespace=namespace),
            "list_pipelines",
            namespace=namespace,
        )
        number = str(whole.pipeline_id)
        found = self._ensured(
            "pipeline_versions",
            name,
            lambda: self._client.upload_pipeline_version(path, name, pipeline_id=number),
            "list_pipeline_versions",
            pipeline_id=number,
        )
        return number, str(found.pipeline_version_id)

    @property
    def _client(self) -> Any:
        return self._to.client

    @property
    def _where(self) -> dict[str, str]:
        return {"namespace": self._cluster.namespace} if self._cluster.namespace else {}

    def _ensured(
        self, kind: str, name: str, make: Callable[[], Any], listing: str, **more: Any
    ) -> Any:
        def find() -> Any:
            found = self._named(kind, name, listing, **more)
            return found[0] if found else None

        return self._to.ensure(f"{name!r} of {kind}", find, make)

    def _named(self, kind: str, name: str, listing: str, **more: Any) -> list[Any]:
        """Every object of that name, over all pages.

        kind: what an answer calls its objects. listing: the client's method.
        """
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        more |= {"page_size": PAGE, "filter": json.dumps({"predicates": [predicate]})}
        found: list[Any] = []
        token = ""
        while True:
            answer = self._to.ask(kind, partial(self._page, listing, page_token=token, **more))
            # a server that leaves the filter out of account gives others as well
            found += [one for one in getattr(answer, kind) or () if one.display_name == name]
            token = answer.next_page_token
            if not token:
                return found

    def _page(self, listing: str, **more: Any) -> Any:
        return getattr(self._client, listing)(**more)


def _created(found: Any) -> str:
    return found.created_at.isoformat() if found.created_at else ""


def _run(found: Any) -> Run:
    config = found.runtime_config
    return Run(
        id=str(found.run_id),
        state=str(found.state or ""),
        created=_created(found),
        parameters=dict((config and config.parameters) or {}),
        error=str((found.error and found.error.message) or ""),
    )
