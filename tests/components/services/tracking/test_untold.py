"""What MLflow was not told is kept with the reason, and told again; no step fails for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from components.services.tracking.runs import MemoryTracking, MlflowTracking, Tracking
from components.services.tracking.untold import PatientTracking, tell_again, untold
from l2dm.errors import TrackingFailed


class Down(MemoryTracking):
    """MLflow as it is while it does not answer: `down`; or refuses points of a name."""

    down = True
    asked = 0

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise TrackingFailed("MLflow does not answer")

    def params(self, values: Any) -> None:
        self._answer()
        super().params(values)

    def metrics(self, points: Any) -> None:
        self._answer()
        if any(name == "bad" for name, _, _ in points):
            refusal = TrackingFailed("MLflow refuses the metric 'bad'")
            refusal.refused = True
            raise refusal
        super().metrics(points)


@pytest.fixture
def store(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "home")


def tell_everything(tracking: Tracking, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"\x89png")
    tracking.params({"rank": 4, "rate": None})
    tracking.metrics([("loss", 1, 0.5), ("loss", 2, float("nan"))])
    tracking.tags({"l2dm.concept": "rex"})
    tracking.file(tmp_path / "sheet.png", "sheets/t0001")
    tracking.finish("FINISHED")


def test_what_is_told_late_is_the_same_as_what_is_told_at_once(
    store: FolderObjects, tmp_path: Path
) -> None:
    at_once, late = MemoryTracking(), Down()
    tell_everything(at_once, tmp_path)
    patient = PatientTracking(lambda: late)
    tell_everything(patient, tmp_path)
    patient.keep(store, "pets", "t0001", "train")
    assert late.asked == 2, "it was not left in peace after its first failure"
    (left,) = untold(store, "pets")
    assert (left.task, left.step, left.why) == ("t0001", "train", "MLflow does not answer")
    tell_again(store, "pets", lambda task, run: late)
    assert len(untold(store, "pets")) == 1 and not late.seen_points
    late.down = False
    tell_again(store, "pets", lambda task, run: late)
    assert untold(store, "pets") == ()
    told = {name: value for name, value in vars(late).items() if name not in ("down", "asked")}
    assert repr(told) == repr(vars(at_once))
    assert not [*store.list("untold/")]


def test_mlflow_that_comes_back_within_a_step_is_told_in_order(store: FolderObjects) -> None:
    now, late = [0.0], Down()
    patient = PatientTracking(lambda: late, clock=lambda: now[0])
    patient.params({"rank": 4})
    late.down, now[0] = False, 61.0
    patient.params({"rank": 8})  # the first value of a name stays
    assert late.seen_params == {"rank": "4"}
    patient.keep(store, "pets", "t0001", "train")
    assert untold(store, "pets") == ()


def test_a_call_that_is_refused_holds_up_no_other(store: FolderObjects) -> None:
    late = Down()
    late.down = False
    patient = PatientTracking(lambda: late)
    patient.metrics([("bad", 1, 0.5)])
    patient.metrics([("loss", 1, 0.5)])
    patient.finish("FINISHED")
    assert (late.seen_points, late.state) == ({("loss", 1): 0.5}, "FINISHED")
    patient.keep(store, "pets", "t0001", "evaluate")
    (left,) = untold(store, "pets")
    assert "refuses the metric 'bad'" in str(left) and "evaluate" in str(left)
    tell_again(store, "pets", lambda task, run: late)
    assert len(untold(store, "pets")) == 1  # until another release takes it


def test_a_run_that_cannot_be_opened_is_no_error(store: FolderObjects, tmp_path: Path) -> None:
    def opened() -> Tracking:
        raise TrackingFailed("MLflow at http://127.0.0.1:9 does not answer")

    patient = PatientTracking(opened)
    tell_everything(patient, tmp_path)
    patient.keep(store, "pets", "t0001", "intake")
    assert "127.0.0.1:9" in untold(store, "pets")[0].why


@pytest.mark.parametrize(
    "data",
    [
        *(b"{", b"\xff", b"[]", b"3", b'{"calls": 3}', b"[" * 100_000),
        b'{"calls": [["params", {"values": []}]]}',
        b'{"calls": [["metrics", {"points": [[]]}]]}',
    ],
    ids=range(8),
)
def test_what_holds_no_calls_is_left_alone(store: FolderObjects, data: bytes) -> None:
    """And keeps nothing else from being told: it would end every step of the line."""
    store.write("untold/pets/t0001/a-1.json", data)
    late = PatientTracking(lambda: (_ for _ in ()).throw(TrackingFailed("MLflow is away")))
    late.params({"rank": 4})
    late.keep(store, "pets", "t0001", "train")
    told = MemoryTracking()
    tell_again(store, "pets", lambda task, run: told)
    assert told.seen_params == {"rank": "4"}
    assert untold(store, "pets") == () and len([*store.list("untold/")]) == 1


@pytest.fixture
def refusing(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[[], MlflowTracking]:
    """A run whose server refuses one metric, whatever this client thinks of its name."""
    from mlflow.exceptions import MlflowException

    def opened() -> MlflowTracking:
        tracking = MlflowTracking(home, "pets", "t0001")
        log_batch = tracking._client.log_batch

        def picky(run: str, metrics: Any = (), **more: Any) -> None:
            if any(one.key == "bad" for one in metrics):
                raise MlflowException("too large", error_code=1000)  # INVALID_PARAMETER_VALUE
            log_batch(run, metrics=metrics, **more)

        monkeypatch.setattr(tracking._client, "log_batch", picky)
        return tracking

    return opened


def test_one_metric_that_a_server_refuses_costs_no_other(
    refusing: Callable[[], MlflowTracking],
) -> None:
    tracking = refusing()
    points = [("loss", step, 0.5) for step in range(20)] + [("bad", 1, 0.5), ("other", 1, 0.5)]
    with pytest.raises(TrackingFailed, match=r"take metrics of task t0001 .* too large") as caught:
        tracking.metrics(points)
    assert caught.value.refused
    data = tracking._client.get_run(tracking.run_id).data
    assert set(data.metrics) == {"loss", "other"}
    assert len(tracking._client.get_metric_history(tracking.run_id, "loss")) == 20


def test_points_that_did_not_arrive_are_sent_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    tracking = MlflowTracking(home, "pets", "t0001")
    log_batch, down = tracking._client.log_batch, [True]

    def away(run: str, **batch: Any) -> None:
        if down:
            raise MlflowException("locked", error_code=2)  # TEMPORARILY_UNAVAILABLE
        log_batch(run, **batch)

    monkeypatch.setattr(tracking._client, "log_batch", away)
    with pytest.raises(TrackingFailed) as caught:
        tracking.metrics([("loss", 1, 0.5)])
    assert not caught.value.refused
    down.clear()
    tracking.metrics([("loss", 1, 0.5)])
    assert tracking._client.get_run(tracking.run_id).data.metrics == {"loss": 0.5}


def test_what_was_to_be_told_in_a_run_of_kubeflow_is_told_there(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not in the run of whoever tells it later."""
    theirs, later = (MlflowTracking(home, "pets", f"kfp-{n}").run_id for n in (1, 2))

    def down() -> Tracking:
        raise TrackingFailed("MLflow does not answer")

    patient = PatientTracking(down)
    patient.params({"rank": 4})
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    patient.keep(home.store, "pets", "t0001", "train")
    monkeypatch.setenv("MLFLOW_RUN_ID", later)
    tell_again(home.store, "pets", lambda task, run: MlflowTracking(home, "pets", task, run))
    client = MlflowTracking(home, "pets", "t0001")._client
    assert client.get_run(theirs).data.params == {"rank": "4"}
    assert client.get_run(later).data.params == {}


def test_of_two_that_make_the_run_of_a_task_at_once_the_older_one_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looked before the first one was there."""
    first = MlflowTracking(home, "pets", "t0001")
    client = type(first._client)
    search, blind = client.search_runs, [True]

    def search_runs(self: Any, *args: Any, **options: Any) -> Any:
        return [] if blind and blind.pop() else search(self, *args, **options)

    monkeypatch.setattr(client, "search_runs", search_runs)
    assert MlflowTracking(home, "pets", "t0001").run_id == first.run_id
    experiment = first._client.get_run(first.run_id).info.experiment_id
    assert len(first._client.search_runs([experiment])) == 1
