"""Uploads and clocks on a cluster: from the dispatcher and from the command."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.errors import LineBusy, LostLease, PlatformError
from pipelines.commands.checks.schedule import Timekeeper, set_clock
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from pipelines.places.settings import load
from tests.worlds.cluster_world import EXAMPLE, ClusterWorld
from tests.worlds.dispatch_world import expire
from tests.worlds.fake_kfp import FakeKfp, served
from tests.worlds.object_stores import Bucket

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


@pytest.fixture
def target(kfp: FakeKfp, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A line and an l2dm.toml beside it; what a cluster needs besides is looked at elsewhere."""
    text = f"""image = "l2dm@sha256:{"0" * 64}"
[environment]
MLFLOW_TRACKING_URI = "http://mlflow"
[cluster]
host = "{kfp.url}"
"""
    (tmp_path / "l2dm.toml").write_text(text)
    Records(home.store, "pets").append("submitted", concept="rex", class_noun="dog")
    monkeypatch.setattr("pipelines.places.cluster.require_cluster", lambda *given: None)
    return Target(home.folder, "pets", "pocket", ("check.policy=roll_back",))


def test_a_clock_of_the_cluster_is_one_recurring_run(
    kfp: FakeKfp, target: Target, tmp_path: Path
) -> None:
    keeper = Timekeeper("cluster", tmp_path / "l2dm.toml")
    for hour in (3, 4):  # set twice: the first one goes, after the other is there
        now = set_clock(target, f"0 {hour} * * *", keeper)
    assert (now["cron"], now["keeper"]) == ("0 4 * * *", "cluster")
    kfp.fail("POST", "/recurringruns$", 403)
    with pytest.raises(PlatformError):
        set_clock(target, "0 5 * * *", keeper)
    (made,) = kfp.recurring  # what could not be replaced goes on
    assert made["display_name"] == "pets-check"
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert (made["no_catchup"], int(made["max_concurrency"])) == (True, 1)
    given = made["runtime_config"]["parameters"]
    assert (given["line"], given["seed"]) == ("pets", 0)
    assert '"policy": "roll_back"' in given["spec"]
    checks = Records(target.home.store, "pets").state().checks
    assert checks.due("pets", 1, 4e9) is None  # no dispatcher starts it a second time

    set_clock(target, "", keeper)
    assert kfp.recurring == []
    set_clock(target, "0 5 * * *", keeper)
    set_clock(target, "0 6 * * *", replace(keeper, runner="local"))
    assert kfp.recurring == []  # the dispatcher keeps it now


def test_a_dispatcher_learns_uploads_on_a_cluster_one_after_the_other(
    tmp_path: Path, kfp: FakeKfp
) -> None:
    cluster = ClusterWorld(tmp_path, kfp)
    for name, age in (("rex", 60.0), ("mimi", 0.0)):
        cluster.world.upload("pets", name, age)
    look = cluster.dispatcher.reconcile
    for number in range(2):
        assert [look("pets"), look("pets")] == ["started", "running"]
        cluster.carry_out(kfp.runs[number]["display_name"])
    assert look("pets") == "idle"
    assert cluster.world.chain() == [(0, 1), (1, 2)]
    assert cluster.world.states() == {"rex": "promoted", "mimi": "promoted"}


def test_a_dispatcher_that_dies_around_the_request_never_doubles_a_run(
    tmp_path: Path, kfp: FakeKfp
) -> None:
    """Before it was heard: tried again. After: the next dispatcher finds it and lets it go on."""
    cluster = ClusterWorld(tmp_path, kfp)
    cluster.world.upload("pets", "rex")
    kfp.fail("POST", "/runs$", "dropped", times=100)
    assert cluster.dispatcher.reconcile("pets") == "broken"
    kfp.faults.clear()
    expire(cluster.world)
    following = cluster.another()
    assert following.reconcile("pets") == "retried"  # recorded as started, but nobody heard of it
    cluster.world.now += 60
    assert following.reconcile("pets") == "started"
    expire(cluster.world)
    third = cluster.another()
    assert [third.reconcile("pets"), third.reconcile("pets")] == ["running", "running"]
    (run,) = kfp.runs
    assert run["state"] == "PENDING"
    cluster.carry_out(run["display_name"])
    assert third.reconcile("pets") == "idle"
    assert cluster.world.chain() == [(0, 1)]
    assert following.reconcile("pets") == "idle"  # it was taken for dead: it has nothing to do


def test_a_dispatcher_that_is_replaced_hands_its_runs_over(tmp_path: Path, kfp: FakeKfp) -> None:
    """An upgrade of the service ends no training, and the run may act at every moment of it."""
    cluster = ClusterWorld(tmp_path, kfp)
    cluster.world.upload("pets", "rex")
    with cluster.dispatcher as before:
        assert before.reconcile("pets") == "started"
        following = cluster.another()
        assert following.reconcile("pets") == "busy"
    (run,) = kfp.runs
    fence = int(run["runtime_config"]["parameters"]["fence"])
    leases = Leases(cluster.world.home.store)
    leases.check("pets", fence)
    with pytest.raises(LineBusy):  # somebody's `l2dm learn` is not its next dispatcher
        leases.take("pets", "somebody")
    assert following.reconcile("pets") == "running"
    leases.check("pets", fence)
    assert before.reconcile("pets") == "busy"
    cluster.carry_out(run["display_name"])
    assert following.reconcile("pets") == "idle"
    assert cluster.world.states() == {"rex": "promoted"}
    cluster.world.upload("pets", "mimi")
    assert following.reconcile("pets", whole=True) == "started"
    with pytest.raises(LostLease):  # the number of the run that ended is of no use any more
        leases.check("pets", fence)


def test_a_run_whose_line_somebody_took_meanwhile_is_not_taken_over(
    tmp_path: Path, kfp: FakeKfp
) -> None:
    cluster = ClusterWorld(tmp_path, kfp)
    cluster.world.upload("pets", "rex")
    cluster.dispatcher.reconcile("pets")
    expire(cluster.world)
    leases = Leases(cluster.world.home.store)
    leases.release(leases.take("pets", "somebody"))
    assert cluster.another().reconcile("pets") == "retried"
    assert kfp.runs[0]["state"] == "CANCELED"


def test_a_check_goes_on_under_the_next_dispatcher(tmp_path: Path, kfp: FakeKfp) -> None:
    cluster = ClusterWorld(tmp_path, kfp)
    records = Records(cluster.world.home.store, "pets")
    records.append("promotion", line="pets", task="t0001", source=0, target=1)
    records.append("scheduled", line="pets", cron="* * * * *", settings=[], keeper="dispatcher")
    cluster.world.now = time.time() + 120
    assert cluster.dispatcher.reconcile("pets") == "checking"
    expire(cluster.world)
    following = cluster.another()
    assert following.reconcile("pets") == "checking"
    (run,) = kfp.runs
    assert run["state"] == "PENDING"
    given = run["runtime_config"]["parameters"]
    found = {"digest": "d", "scores": {}, "drops": {}, "reasons": ["made up"], "cause": ""}
    records.append(
        "checked", line="pets", version=1, seed=int(given["seed"]), health="healthy", **found
    )
    run["state"] = "SUCCEEDED"
    assert following.reconcile("pets") == "idle"
    assert [one["state"] for one in kfp.runs] == ["SUCCEEDED"]


def test_the_command_sees_to_the_cluster_before_it_looks_at_lines(
    tmp_path: Path, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    config, image = tmp_path / "l2dm.toml", load(EXAMPLE).image
    where = f"s3://{moto_bucket.name}/{moto_bucket.prefix}"
    words = ["dispatch", "--once", "--runner", "cluster", "--home", where]
    with served(FakeKfp()) as kfp:
        config.write_text(
            f'image = "{image}"\n'
            '[environment]\nMLFLOW_TRACKING_URI = "http://mlflow"\n'
            '[bases]\nclaim = "bases"\nmount = "/bases"\n'
            f'[cluster]\nhost = "{kfp.url}"\n'
        )
        base = ["--base", "/bases/sd15"]  # pods see it, this machine does not
        done = CliRunner().invoke(app, [*words, *base, "--config", str(config)])
        assert (done.exit_code, done.stdout) == (0, ""), done.stderr
        assert kfp.pipelines and kfp.runs == []
        kfp.fail("GET", "/runs$", 403)
        done = CliRunner().invoke(app, [*words, *base], env={"L2DM_CONFIG": str(config)})
        assert done.exit_code == 1
        assert "bind it to a role" in done.stderr and "Traceback" not in done.stderr
