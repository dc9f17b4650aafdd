"""A step and an MLflow that does not answer: the step ends well, and MLflow is told later."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.runtime import step as steps
from components.runtime.step import Parameters, Step, StepSubject
from components.services.store.home import Home
from components.services.tracking.connection import connect
from components.services.tracking.untold import untold
from l2dm.errors import FilesGone, TrackingFailed


def step_of(home: Home, tmp_path: Path, name: str = "promote") -> Step:
    metrics: Any = SimpleNamespace(path=tmp_path / "metrics.json", log_metric=lambda *_: None)
    subject = StepSubject("pets", "rex", tracked="t0001")
    return Step(name, subject, Parameters("pocket", "{}", home.place), metrics)


def test_a_step_ends_well_while_mlflow_is_down_and_the_next_one_tells(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with step_of(home, tmp_path, "train") as step:
        step.measure({"train/loss": 0.5, "drift/child's toy/distance": 0.1}, 1)
        step.tracking.params({"rank": 4})
    (left,) = untold(home.store, "pets")
    assert (left.step, left.task) == ("train", "t0001") and "127.0.0.1:9" in left.why
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with step_of(home, tmp_path) as step:
        step.tracking.finish("FINISHED")
    assert untold(home.store, "pets") == ()
    client = connect(home).MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'l2dm/pets'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params) == ("FINISHED", {"rank": "4"})
    assert run.data.metrics["train/loss"] == 0.5 and len(run.data.metrics) == 2


def test_a_step_that_fails_leaves_its_own_reason_and_not_mlflows(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match="of the step"), step_of(home, tmp_path, "train") as step:
        step.measure({"train/loss": 0.5}, 1)
        raise ValueError("of the step")
    assert b"of the step" in home.store.read("runs/pets/rex/error.json").data
    assert len(untold(home.store, "pets")) == 1


def test_a_release_waits_for_mlflow(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(steps.time, "sleep", slept.append)
    answers = [TrackingFailed("MLflow is away"), TrackingFailed("still away")]

    def call() -> str:
        if answers:
            raise answers.pop(0)
        return "registered"

    assert step_of(home, tmp_path).patiently(call) == "registered"
    assert slept == [1.0, 2.0]
    assert "waits for MLflow: still away" in capsys.readouterr().out


def test_a_refusal_is_not_waited_out(home: Home, tmp_path: Path) -> None:
    refusal = TrackingFailed("the name is too long")
    refusal.refused = True
    for error in (refusal, FilesGone("no such files"), ValueError("ours")):

        def call(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            step_of(home, tmp_path).patiently(call)


def test_an_mlflow_that_stays_away_is_an_error_in_the_end(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(steps.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def call() -> None:
        raise TrackingFailed("away")

    with pytest.raises(TrackingFailed, match="away"):
        step_of(home, tmp_path).patiently(call)
    assert steps.SILENCE < now[0] < steps.SILENCE + 60
