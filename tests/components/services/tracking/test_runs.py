"""One contract suite for both trackings: what is told twice is kept once."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from components.services.store.home import Home
from components.services.tracking import runs
from components.services.tracking.connection import connect
from components.services.tracking.runs import MemoryTracking, MlflowTracking, Point, Tracking
from l2dm.errors import TrackingFailed


@pytest.fixture(params=["memory", "mlflow"])
def opened(request: pytest.FixtureRequest, home: Home) -> Any:
    """A function that opens the tracking of one task; again after a crash."""
    if request.param == "mlflow":
        return lambda: MlflowTracking(home, "pets", "t0001")
    kept = MemoryTracking()
    return lambda: kept


def points(tracking: Tracking) -> list[Point]:
    """Every point, doubled ones included, in order."""
    if isinstance(tracking, MemoryTracking):
        return sorted((name, step, value) for (name, step), value in tracking.seen_points.items())
    assert isinstance(tracking, MlflowTracking)
    client = tracking._client
    names = client.get_run(tracking.run_id).data.metrics
    return sorted(
        (name, point.step, point.value)
        for name in names
        for point in client.get_metric_history(tracking.run_id, name)
    )


def params(tracking: Tracking) -> dict[str, str]:
    if isinstance(tracking, MemoryTracking):
        return tracking.seen_params
    assert isinstance(tracking, MlflowTracking)
    return dict(tracking._client.get_run(tracking.run_id).data.params)


def test_a_step_that_is_tried_again_doubles_no_point(opened: Any) -> None:
    opened().metrics([("train/loss", step, 1.0 / step) for step in (1, 2, 3)])
    again = opened()
    again.metrics([("train/loss", step, 9.0) for step in (2, 3, 4)])
    again.metrics([("train/loss", 4, 8.0), ("cost/train_seconds", 0, 2.5)])
    assert points(again) == [
        ("cost/train_seconds", 0, 2.5),
        ("train/loss", 1, 1.0),
        ("train/loss", 2, 0.5),
        ("train/loss", 3, 1.0 / 3),
        ("train/loss", 4, 9.0),
    ]


def test_the_first_value_of_a_parameter_stays_and_a_retry_does_not_fail(opened: Any) -> None:
    opened().params({f"train.p{number}": number for number in range(130)})
    again = opened()
    again.params({"train.p0": 99, "train.new": "x"})
    found = params(again)
    assert (found["train.p0"], found["train.new"], len(found)) == ("0", "x", 131)


def test_more_points_than_one_request_holds(opened: Any) -> None:
    tracking = opened()
    tracking.metrics([("train/loss", step, float(step)) for step in range(1500)])
    assert len(points(tracking)) == 1500


def test_files_and_tags_belong_to_the_run_and_it_can_be_finished(
    opened: Any, tmp_path: Path
) -> None:
    tracking = opened()
    (tmp_path / "report.html").write_text("<p>")
    tracking.file(tmp_path / "report.html", "")
    tracking.file(tmp_path / "report.html", "sheets/t0001")
    tracking.tags({"l2dm.concept": "rex"})
    tracking.finish("FINISHED")
    if isinstance(tracking, MemoryTracking):
        assert set(tracking.files) == {"report.html", "sheets/t0001/report.html"}
        assert (tracking.seen_tags, tracking.state) == ({"l2dm.concept": "rex"}, "FINISHED")
        return
    client = tracking._client
    run = client.get_run(tracking.run_id)
    assert (run.data.tags["l2dm.concept"], run.info.status) == ("rex", "FINISHED")
    assert {entry.path for entry in client.list_artifacts(tracking.run_id)} == {
        "report.html",
        "sheets",
    }


def test_one_run_per_task_and_one_experiment_per_line(home: Home) -> None:
    runs = [MlflowTracking(home, "pets", task).run_id for task in ("t0001", "t0001", "t0002")]
    assert runs[0] == runs[1] != runs[2]
    other = MlflowTracking(home, "cars", "t0001")
    assert other.run_id not in runs
    names = {found.name for found in other._client.search_experiments()}
    assert {"l2dm/pets", "l2dm/cars"} <= names


def test_a_run_that_was_deleted_by_hand_is_made_again(home: Home) -> None:
    first = MlflowTracking(home, "pets", "t0001")
    connect(home).MlflowClient().delete_run(first.run_id)
    again = MlflowTracking(home, "pets", "t0001")
    assert again.run_id != first.run_id
    again.metrics([("loss", 1, 0.5)])
    again.finish("FINISHED")


def test_an_experiment_that_was_deleted_by_hand_is_restored(home: Home) -> None:
    first = MlflowTracking(home, "pets", "t0001")
    client = connect(home).MlflowClient()
    client.delete_experiment(client.get_run(first.run_id).info.experiment_id)
    again = MlflowTracking(home, "pets", "t0001")
    again.metrics([("loss", 1, 0.5)])
    assert client.get_run(again.run_id).info.lifecycle_stage == "active"


@pytest.mark.parametrize("how", ["metrics", "params", "tags", "file", "finish"])
def test_a_run_that_is_deleted_while_a_step_works_is_followed_by_another(
    home: Home, tmp_path: Path, how: str
) -> None:
    tracking = MlflowTracking(home, "pets", "t0001")
    tracking.metrics([("loss", 1, 0.5)])
    first, client = tracking.run_id, connect(home).MlflowClient()
    client.delete_run(first)
    (tmp_path / "sheet.png").write_bytes(b"png")
    tell: dict[str, Any] = {
        "metrics": lambda: tracking.metrics([("loss", 1, 0.5), ("loss", 2, 0.4)]),
        "params": lambda: tracking.params({"rank": 8}),
        "tags": lambda: tracking.tags({"l2dm.concept": "rex"}),
        "file": lambda: tracking.file(tmp_path / "sheet.png", ""),
        "finish": lambda: tracking.finish("FINISHED"),
    }
    tell[how]()
    assert tracking.run_id != first
    assert MlflowTracking(home, "pets", "t0001").run_id == tracking.run_id
    run = client.get_run(tracking.run_id)
    kept = {
        "metrics": run.data.metrics == {"loss": 0.4},
        "params": run.data.params == {"rank": "8"},
        "tags": run.data.tags.get("l2dm.concept") == "rex",
        "file": [one.path for one in client.list_artifacts(tracking.run_id)] == ["sheet.png"],
        "finish": run.info.status == "FINISHED",
    }
    assert kept[how]
    assert client.get_run(first).data.metrics == {"loss": 0.5}


def test_a_run_that_the_platform_made_is_used(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    given = MlflowTracking(home, "pets", "t0009").run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    assert MlflowTracking(home, "pets", "t0001").run_id == given


def test_runs_that_the_platform_made_are_found_by_their_task(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each step has one of its own, in the platform's experiment; whoever looks has none."""
    client = connect(home).MlflowClient()
    where = client.create_experiment("kfp", artifact_location="mlflow-artifacts:/kfp")
    theirs, other = (client.create_run(where).info.run_id for _ in range(2))
    for task, run in (("t0001", theirs), ("t0002", other)):
        monkeypatch.setenv("MLFLOW_RUN_ID", run)
        MlflowTracking(home, "pets", task).params({"rank": 4})
    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setattr(runs, "server", lambda: "http://mlflow")
    page = tmp_path / "pets.html"
    page.write_text("<p>")
    runs.file(home, "pets", "t0001", page)
    runs.close(home, "pets", "t0001", "FAILED")
    assert client.get_run(theirs).info.status == "FAILED"
    assert [one.path for one in client.list_artifacts(theirs)] == ["pets.html"]
    assert client.get_run(other).info.status == "RUNNING"
    assert client.get_experiment_by_name("l2dm/pets") is None
    found = {one.info.run_id for one in runs.runs_elsewhere(client, "pets")}
    assert (found, runs.runs_elsewhere(client, "cars")) == ({theirs, other}, [])


def test_the_run_of_a_task_that_became_no_version_is_closed(home: Home) -> None:
    client = connect(home).MlflowClient()
    runs.close(home, "pets", "t0001", "FAILED")  # none was begun, and none is made
    assert client.get_experiment_by_name("l2dm/pets") is None
    begun = {
        task: MlflowTracking(home, "pets", task).run_id for task in ("t0001", "t0002", "t0003")
    }
    MlflowTracking(home, "pets", "t0002").finish("FINISHED")
    runs.close(home, "pets", "t0001", "FAILED")
    runs.close(home, "pets", "t0002", "KILLED")  # it has ended already
    ends = {task: client.get_run(run).info.status for task, run in begun.items()}
    assert ends == {"t0001": "FAILED", "t0002": "FINISHED", "t0003": "RUNNING"}


def test_a_file_reaches_the_run_of_a_task_and_makes_none(home: Home, tmp_path: Path) -> None:
    page = tmp_path / "pets.html"
    page.write_text("<p>")
    runs.file(home, "pets", "t0001", page)
    known = MlflowTracking(home, "pets", "t0002").run_id
    runs.file(home, "pets", "t0002", page)
    client = connect(home).MlflowClient()
    assert [one.path for one in client.list_artifacts(known)] == ["pets.html"]
    assert runs.runs_of(client, "pets", "t0001") == []


def test_an_experiment_that_cannot_be_made_is_told_as_what_kept_it_from_that(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk; the other reason why one is not made is that it is there by then."""
    client = connect(home).MlflowClient

    def full(*_: object, **__: object) -> None:
        raise MlflowException("database or disk is full")

    monkeypatch.setattr(client, "create_experiment", full)
    with pytest.raises(TrackingFailed, match="database or disk is full"):
        MlflowTracking(home, "pets", "t0001").tags({"l2dm.concept": "rex"})
