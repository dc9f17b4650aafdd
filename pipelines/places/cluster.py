"""Runs on Kubeflow Pipelines: submitted under their name, looked up by it, ended by it.

Nothing is kept here that the server does not know as well, so a dispatcher that died is followed
by one that goes on. Runs go on when the dispatcher ends; their lease decides whether they may act.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.services.line import run_journal
from components.services.line.checks import CONCEPT as CHECK
from components.services.line.run_journal import Failure
from components.services.store.home import Home
from l2dm.errors import BadSettings
from pipelines.places.compilation import PIPELINES, compile_pipeline
from pipelines.places.kfp_api import KfpApi, Run
from pipelines.places.kfp_client import Connection, Missing
from pipelines.places.placement import base_problems
from pipelines.places.run_here import Job
from pipelines.places.runs import Look
from pipelines.places.settings import NOUN, Settings

log = logging.getLogger(__name__)

TRACKING = "MLFLOW_TRACKING_URI"
ALIVE = ("", "RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED")
DIGITS = 16  # of a version's hash in its name


class ClusterRuns:
    """Runs as pipeline runs of one Kubeflow Pipelines, an experiment per line."""

    lasting = True
    patience = 600.0  # a pod's end reaches the API through the workflow controller and its agent

    def __init__(self, home: Home, settings: Settings, api: KfpApi | None = None) -> None:
        self._home, self._settings = home, settings
        self._api = api or KfpApi(Connection(settings.cluster))
        self._versions: dict[str, tuple[str, str]] = {}
        self._experiments: dict[str, str] = {}

    def prepare(self) -> None:
        """Everything that can fail before a run starts. Raises PlatformError, BadSettings."""
        self._api.check()
        for pipeline in PIPELINES:
            self._upload(pipeline)

    def start(self, name: str, job: Job) -> None:
        """See Runs."""
        try:
            self._submit(name, job)
        except Missing:  # an id that we remembered was deleted
            self._versions.clear()
            self._experiments.clear()
            self._submit(name, job)

    def look(self, name: str) -> Look:
        """See Runs. Of two runs with this name the later one is ended."""
        found = self._api.runs(name)
        if not found:
            return Look("absent")
        for double in found[1:]:
            if double.state in ALIVE and double.state != "CANCELING":
                log.warning("run %s is there twice: %s is ended", name, self._api.page(double))
                self._api.terminate(double)
        return self._told(found[0])

    def stop(self, name: str) -> None:
        """See Runs. The server ends its pods some time later."""
        for run in self._api.runs(name):
            if run.state in ALIVE and run.state != "CANCELING":
                self._api.terminate(run)

    def repeat(self, line: str, cron: str, job: Job) -> bool:
        """Check a line on the server's own clock; False where it did so already.

        cron: five fields, UTC.
        """
        experiment = self._api.experiment(f"l2dm/{line}")
        version = self._upload(job.pipeline)
        # five fields of ours; the server's begin with seconds
        given = dict(job.arguments)
        return self._api.repeat(repeat_name(line), experiment, version, f"0 {cron}", given)

    def end_repeating(self, line: str) -> None:
        """End the server's clock for a line."""
        self._api.end_repeating(repeat_name(line))

    def close(self) -> None:
        """Leave the runs alone: the next dispatcher settles them."""

    def _submit(self, name: str, job: Job) -> None:
        version = self._versions.get(job.pipeline) or self._upload(job.pipeline)
        if job.line not in self._experiments:
            self._experiments[job.line] = self._api.experiment(f"l2dm/{job.line}")
        if self._api.runs(name):
            return
        run_journal.forget(job.home.store, job.key)
        self._api.submit(name, self._experiments[job.line], version, dict(job.arguments))

    def _upload(self, pipeline: str) -> tuple[str, str]:
        """Ids of pipeline and version. A version's name is the hash of its YAML."""
        with tempfile.TemporaryDirectory() as scratch:
            package = compile_pipeline(pipeline, Path(scratch), self._settings)
            digest = hashlib.sha256(package.read_bytes()).hexdigest()[:DIGITS]
            found = self._api.version(package, f"l2dm-{pipeline}".replace("_", "-"), digest)
        self._versions[pipeline] = found
        return found

    def _told(self, run: Run) -> Look:
        if run.state in ALIVE:
            return Look("running")
        if run.state == "SUCCEEDED":
            return Look("succeeded")
        failure = self._failure(run)
        words = run.error or "no step could say why (out of memory, evicted, out of time?)"
        text = f"the cluster's run ended as {run.state}: {words}; see {self._api.page(run)}"
        return Look("failed", failure, text)

    def _failure(self, run: Run) -> Failure | None:
        """What the step said: under the line and upload that the run was given."""
        line, upload = run.parameters.get("line"), run.parameters.get("upload", CHECK)
        if not line or not upload:
            return None
        return run_journal.read_failure(
            self._home.store, self._home.run_key(str(line), str(upload))
        )


def repeat_name(line: str) -> str:
    """Name of a line's recurring run."""
    return f"{line}-check"


def require_cluster(home: Home, settings: Settings, base: str) -> None:
    """Raise BadSettings with everything that keeps runs from executing on a cluster."""
    problems = list(_problems(home, settings, base))
    if problems:
        raise BadSettings(problems)


def _problems(home: Home, settings: Settings, base: str) -> Iterator[str]:
    if not home.bucket:
        yield (
            f"expected the state in s3://bucket/prefix, because pods see no folder of this "
            f"machine, found {home.place}; set --home or L2DM_HOME"
        )
    if not settings.cluster.host:
        yield f"{NOUN} cluster.host: expected the address of Kubeflow Pipelines, found nothing"
    if not settings.image:
        yield f"{NOUN} image: expected the image of every step, name@sha256:..., found nothing"
    secret = any(TRACKING in variables for variables in settings.secrets.values())
    if TRACKING not in settings.environment and not secret:
        yield (
            f"{NOUN} environment: expected {TRACKING}, because every pod must reach the same "
            "tracking server, found nothing"
        )
    ca = settings.cluster.ca
    if ca and not Path(ca).is_file():
        yield f"{NOUN} cluster.ca: expected a PEM file, found no file {ca}"
    yield from base_problems(settings, base)
