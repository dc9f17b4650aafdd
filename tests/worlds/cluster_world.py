"""A fake Kubeflow Pipelines, runs on it, and a dispatcher whose runs the test carries out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.services.line import run_journal
from components.services.store.home import Home
from pipelines.dispatcher.dispatcher import Dispatcher, RunSettings
from pipelines.places.cluster import ClusterRuns
from pipelines.places.kfp_api import KfpApi
from pipelines.places.kfp_client import Connection
from pipelines.places.run_here import Job
from pipelines.places.settings import parse
from tests.worlds.dispatch_world import World
from tests.worlds.fake_kfp import FakeKfp, served

EXAMPLE = Path(__file__).parents[2] / "docs" / "l2dm.toml"
NAME = "pets-0001-rex-0a1b2c3d-1"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "L2DM_KFP_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    with served(FakeKfp()) as fake:
        yield fake


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def runs_on(kfp: FakeKfp, home: Home, **cluster: Any) -> ClusterRuns:
    settings = parse({"cluster": {"host": kfp.url, **cluster}})
    return ClusterRuns(home, settings, KfpApi(Connection(settings.cluster, Pauses())))


def job_of(home: Home, concept: str = "rex") -> Job:
    return Job("pets", concept, "pocket", "{}", home, 7)


class ClusterWorld:
    """A dispatcher whose runs are the fake server's; the test carries them out."""

    def __init__(self, folder: Path, kfp: FakeKfp) -> None:
        self.world, self.kfp = World(folder), kfp
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        """A dispatcher of another process: it shares nothing with the first."""
        world = self.world
        return Dispatcher(
            world.home,
            runs_on(self.kfp, world.home),
            lambda: world.registry,
            RunSettings("pocket", "{}"),
            clock=lambda: world.now,
        )

    def carry_out(self, name: str) -> None:
        """What pods do: the steps of the run's own arguments, then its state."""
        given = self.kfp.run(name)["runtime_config"]["parameters"]
        job = Job(
            given["line"],
            given["upload"],
            given["base"],
            given["spec"],
            Home.at(given["home"]),
            int(given["fence"]),
        )
        self.world.runs.jobs[name] = job
        self.world.runs.finish(name)
        look = self.world.runs.ends[name]
        if look.failure:
            text = look.failure.problems[0]
            run_journal.write_failure(
                job.home.store, job.key, look.failure.step, RuntimeError(text)
            )
        self.kfp.run(name)["state"] = "FAILED" if look.state == "failed" else "SUCCEEDED"
