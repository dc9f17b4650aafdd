"""Checks on the cluster's clock follow the dispatcher that starts: its image, base and spec."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.services.line.records import Records
from components.services.store.home import Home
from pipelines.commands.cli import app
from pipelines.commands.target import Target
from pipelines.dispatcher.recurring_checks import check_of, renew
from pipelines.places.cluster import ClusterRuns
from pipelines.places.kfp_api import KfpApi
from pipelines.places.kfp_client import Connection
from pipelines.places.settings import Settings, parse
from tests.worlds.cluster_world import Pauses
from tests.worlds.fake_kfp import FakeKfp
from tests.worlds.object_stores import Bucket

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A line whose clock the cluster keeps, one whose clock a dispatcher does, one without."""
    home = Home.at(tmp_path / "home")
    for line, keeper in (("pets", "cluster"), ("cars", "dispatcher"), ("cups", "")):
        records = Records(home.store, line)
        records.append("submitted", concept="rex", class_noun="dog")
        if keeper:
            facts = {"settings": ["check.policy=roll_back"], "keeper": keeper}
            records.append("scheduled", line=line, cron="0 3 * * *", **facts)
    return Target(home.folder, "", "pocket")


def settings_of(kfp: FakeKfp, image: str = "0", **cluster: str) -> Settings:
    where = {"host": kfp.url, **cluster}
    return parse({"image": f"l2dm@sha256:{image * 64}", "cluster": where})


def runs_of(kfp: FakeKfp, target: Target, settings: Settings) -> ClusterRuns:
    return ClusterRuns(target.home, settings, KfpApi(Connection(settings.cluster, Pauses())))


def renewed(kfp: FakeKfp, target: Target, settings: Settings) -> None:
    """A dispatcher of another process that starts."""
    runs = runs_of(kfp, target, settings)
    renew(
        target.home,
        target.base_name,
        target.spec,
        lambda line: Records(target.home.store, line),
        runs,
    )


def test_an_upgrade_renews_the_clusters_checks_once(kfp: FakeKfp, target: Target) -> None:
    job = check_of(target.home, "pets", "pocket", replace(target, settings=()).spec)
    runs_of(kfp, target, settings_of(kfp)).repeat("pets", "0 3 * * *", job)
    for image, base, settings in (
        ("1", "pocket", ()),
        ("1", "org/other", ()),
        ("1", "org/other", ("check.margin=0.2",)),
    ):
        (before,) = kfp.recurring
        now = replace(target, base=base, settings=settings)
        for _ in range(3):  # the same one starts again: nothing is made
            renewed(kfp, now, settings_of(kfp, image))
            (made,) = kfp.recurring
        assert made is not before
        assert made["display_name"] == "pets-check"
        assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
        given = made["runtime_config"]["parameters"]
        assert (given["base"], given["seed"]) == (base, 0)
        assert json.loads(given["spec"])["check"]["policy"] == "roll_back"  # the clock's own
        chosen = made["pipeline_version_reference"]["pipeline_version_id"]
        (version,) = (one for one in kfp.versions if one["pipeline_version_id"] == chosen)
        assert image * 64 in json.dumps(version["pipeline_spec"])
    assert kfp.count("POST", "/recurringruns") == 4


def test_who_a_run_is_and_where_it_writes_count_too(kfp: FakeKfp, target: Target) -> None:
    for more in ({}, {"service_account": "steps"}, {"pipeline_root": "s3://kfp"}):
        for _ in range(2):
            renewed(kfp, target, settings_of(kfp, **more))
    assert kfp.count("POST", "/recurringruns") == 3
    assert len(kfp.recurring) == 1


def test_of_two_that_were_made_at_once_the_first_stays(kfp: FakeKfp, target: Target) -> None:
    """Two dispatchers start together and neither saw the other's."""
    renewed(kfp, target, settings_of(kfp))
    (first,) = kfp.recurring
    other = {"recurring_run_id": "0", "created_at": "2027-01-01T00:00:00+00:00"}
    kfp.recurring.insert(0, {**first, **other})
    renewed(kfp, target, settings_of(kfp))
    assert kfp.recurring == [first]


def test_a_server_that_shows_little_of_them_is_no_reason_to_fail(
    kfp: FakeKfp, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KfpApi, "_does", lambda *given: False)
    for _ in range(2):
        renewed(kfp, target, settings_of(kfp))
        assert len(kfp.recurring) == 1


@pytest.mark.parametrize("kind", ["lost", "dropped", 503])
def test_an_answer_that_is_lost_doubles_none(kfp: FakeKfp, target: Target, kind: int | str) -> None:
    kfp.fail("POST", "/recurringruns$", kind)
    renewed(kfp, target, settings_of(kfp))
    assert len(kfp.recurring) == 1


def test_what_cannot_be_renewed_is_told_and_goes_on(
    kfp: FakeKfp, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    renewed(kfp, target, settings_of(kfp))
    before = list(kfp.recurring)
    broken = target.home.folder / "records/cups/000002.json"
    broken.write_text("half a reco")
    kfp.fail("POST", "/recurringruns$", 403)
    with caplog.at_level(logging.ERROR):
        renewed(kfp, target, settings_of(kfp, "1"))
    assert kfp.recurring == before
    told = [record.getMessage() for record in caplog.records]
    assert any("line cups: its check on the cluster is not looked at" in one for one in told)
    assert any("line pets: its check on the cluster goes on as it was" in one for one in told)


def test_the_command_renews_when_it_starts(
    tmp_path: Path, kfp: FakeKfp, moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    where = f"s3://{moto_bucket.name}/{moto_bucket.prefix}"
    records = Records(Home.at(where).store, "pets")
    facts = {"settings": [], "keeper": "cluster"}
    records.append("scheduled", line="pets", cron="0 3 * * *", **facts)
    config = tmp_path / "l2dm.toml"
    config.write_text(
        f'image = "l2dm@sha256:{"0" * 64}"\n'
        '[environment]\nMLFLOW_TRACKING_URI = "http://mlflow"\n'
        f'[cluster]\nhost = "{kfp.url}"\n'
    )
    words = ["dispatch", "--once", "--runner", "cluster", "--home", where]
    for _ in range(2):
        done = CliRunner().invoke(app, [*words, "--config", str(config)])
        assert done.exit_code == 0, done.stderr
        assert kfp.count("POST", "/recurringruns") == 1
    (made,) = kfp.recurring
    assert made["runtime_config"]["parameters"]["home"] == where
