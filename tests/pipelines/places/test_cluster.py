"""Runs on Kubeflow Pipelines: kfp's real client against an API that remembers and fails."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from components.services.line import run_journal
from components.services.line.run_journal import Cost, Failure
from components.services.store.home import Home
from l2dm.errors import BadDoor, PlatformError
from pipelines.places.cluster import ClusterRuns
from pipelines.places.compilation import PIPELINES, compile_pipeline
from pipelines.places.kfp_api import KfpApi
from pipelines.places.kfp_client import Connection
from pipelines.places.runs import Look
from pipelines.places.settings import Cluster, load, parse
from tests.worlds.cluster_world import EXAMPLE, NAME, Pauses, job_of, runs_on
from tests.worlds.fake_kfp import FakeKfp, served

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def test_a_run_is_submitted_once_with_its_arguments_in_the_experiment_of_its_line(
    kfp: FakeKfp, home: Home
) -> None:
    runs = runs_on(kfp, home)
    assert runs.look(NAME) == Look("absent")
    for again in (runs, runs, runs_on(kfp, home)):
        again.start(NAME, job_of(home))
    run = kfp.run(NAME)
    assert run["runtime_config"]["parameters"] == dict(job_of(home).arguments)
    (experiment,) = kfp.experiments
    assert (experiment["display_name"], experiment["experiment_id"]) == (
        "l2dm/pets",
        run["experiment_id"],
    )
    assert runs.look(NAME) == Look("running")


def test_the_pipeline_is_uploaded_once_and_a_version_by_the_hash_of_its_yaml(
    kfp: FakeKfp, home: Home, tmp_path: Path
) -> None:
    for _ in range(2):
        runs_on(kfp, home).prepare()
    other = parse({"cluster": {"host": kfp.url}, "defaults": {"cpu_limit": "1"}})
    ClusterRuns(home, other).prepare()
    ids = {one["display_name"]: one["pipeline_id"] for one in kfp.pipelines}
    assert list(ids) == [f"l2dm-{name}".replace("_", "-") for name in PIPELINES]
    yaml = compile_pipeline("learn_concept", tmp_path).read_bytes()
    learn = ids["l2dm-learn-concept"]
    found = [one["display_name"] for one in kfp.versions if one["pipeline_id"] == learn]
    first, second, third = found
    assert first == "l2dm-learn-concept"  # the server's own: every pipeline is born with one
    assert second == hashlib.sha256(yaml).hexdigest()[:16]
    assert third not in (first, second)
    runs = ClusterRuns(home, other)
    runs.start(NAME, job_of(home))
    chosen = kfp.run(NAME)["pipeline_version_reference"]["pipeline_version_id"]
    assert [
        one["display_name"] for one in kfp.versions if one["pipeline_version_id"] == chosen
    ] == [third]


def test_a_check_is_a_run_of_its_own_pipeline(kfp: FakeKfp, home: Home) -> None:
    runs = runs_on(kfp, home)
    job = replace(job_of(home), concept="_check", seed=7)
    runs.start("pets-check-7-1", job)
    run = kfp.run("pets-check-7-1")
    assert run["runtime_config"]["parameters"]["seed"] == 7
    assert "upload" not in run["runtime_config"]["parameters"]
    (pipeline,) = kfp.pipelines
    assert pipeline["display_name"] == "l2dm-check-forgetting"
    run_journal.write_failure(home.store, home.run_key("pets", "_check"), "check", BadDoor("torn"))
    run["state"] = "FAILED"
    failure = runs.look("pets-check-7-1").failure
    assert failure is not None
    assert (failure.step, failure.problems) == ("check", ("torn",))


@pytest.mark.slow
def test_the_placed_pipeline_with_its_platform_part_is_one_that_the_server_takes(
    kfp: FakeKfp, home: Home
) -> None:
    settings = load(EXAMPLE)
    api = KfpApi(Connection(Cluster(host=kfp.url)))
    ClusterRuns(home, settings, api).prepare()
    assert len(kfp.versions) == 2 * len(PIPELINES)  # each is born with one


@pytest.mark.parametrize("path", ["/runs$", "/experiments$", "/upload$", "/upload_version$"])
@pytest.mark.parametrize("kind", ["lost", "dropped", 503, 504])
def test_an_answer_that_is_lost_makes_nothing_twice(
    kfp: FakeKfp, home: Home, path: str, kind: int | str
) -> None:
    kfp.fail("POST", path, kind)
    runs_on(kfp, home).start(NAME, job_of(home))
    assert kfp.run(NAME)
    assert (len(kfp.pipelines), len(kfp.versions), len(kfp.experiments)) == (1, 2, 1)
    assert kfp.faults[0].times == 0


def test_whoever_died_after_the_request_finds_the_run_again(kfp: FakeKfp, home: Home) -> None:
    first = runs_on(kfp, home)
    first.prepare()
    kfp.fail("POST", "/runs$", "lost")
    kfp.fail("GET", "/runs$", "dropped", times=100, spare=2)  # from then on it hears nothing
    with pytest.raises(PlatformError, match="expected an answer"):
        first.start(NAME, job_of(home))
    kfp.faults.clear()
    second = runs_on(kfp, home)
    assert second.look(NAME) == Look("running")
    second.start(NAME, job_of(home))
    assert len(kfp.runs) == 1


def test_a_run_that_was_made_but_cannot_be_found_is_not_made_again(
    kfp: FakeKfp, home: Home
) -> None:
    kfp.hiding = True
    with pytest.raises(PlatformError, match=r"expected to find at .* what was made there"):
        runs_on(kfp, home).start(NAME, job_of(home))
    assert len(kfp.runs) == 1


def test_what_is_never_answered_is_told_after_three_tries(kfp: FakeKfp, home: Home) -> None:
    kfp.fail("POST", "/runs$", 503, times=100)
    with pytest.raises(PlatformError, match="found HTTP 503"):
        runs_on(kfp, home).start(NAME, job_of(home))
    assert kfp.count("POST", "/runs") == 3


def test_a_server_that_is_silent_for_good_is_told_after_three_tries(
    kfp: FakeKfp, home: Home
) -> None:
    settings, pauses = parse({"cluster": {"host": kfp.url}}), Pauses()
    runs = ClusterRuns(home, settings, KfpApi(Connection(settings.cluster, pauses)))
    runs.look(NAME)
    kfp.fail("GET", "/runs$", 503, times=1000)
    before = kfp.count("GET", "/runs")
    with pytest.raises(PlatformError, match=r"found HTTP 503 .*it was tried again"):
        runs.look(NAME)
    assert kfp.count("GET", "/runs") - before == 3
    low, high = (0.25, 0.5), (0.5, 1.0)
    assert all(a <= b <= c for a, b, c in zip(low, pauses.seconds, high, strict=True))
    with pytest.raises(PlatformError):
        runs.look(NAME)
    assert kfp.count("GET", "/runs") - before == 4  # others wait: one try is enough by now


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    kfp: FakeKfp, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.places.kfp_client.TIMEOUT", (0.2, 0.2))
    runs = runs_on(kfp, home)
    kfp.fail("GET", "/runs$", "silent", times=100)
    with pytest.raises(PlatformError, match="expected an answer"):
        runs.look(NAME)
    assert kfp.count("GET", "/runs") == 3  # the library beneath does not multiply them


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "look at cluster.token_path and cluster.audience"),
        (403, "bind it to a role that may create and read runs"),
        (404, "look at the path in cluster.host"),
        (400, "as it was told to"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_tried_again(
    kfp: FakeKfp, home: Home, status: int, advice: str
) -> None:
    runs = runs_on(kfp, home)
    kfp.fail("GET", "/runs$", status, times=100)
    with pytest.raises(PlatformError, match=advice) as caught:
        runs.look(NAME)
    assert f"HTTP {status} (as it was told to)" in str(caught.value)
    assert kfp.count("GET", "/runs") == 1


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("PENDING", "running"),
        ("RUNNING", "running"),
        ("CANCELING", "running"),
        ("PAUSED", "running"),
        ("RUNTIME_STATE_UNSPECIFIED", "running"),
        ("SUCCEEDED", "succeeded"),
        ("FAILED", "failed"),
        ("CANCELED", "failed"),
        ("SKIPPED", "failed"),
    ],
)
def test_every_state_of_a_run_is_told_as_one_of_ours(
    kfp: FakeKfp, home: Home, state: str, seen: str
) -> None:
    runs = runs_on(kfp, home)
    runs.start(NAME, job_of(home))
    kfp.run(NAME)["state"] = state
    look = runs.look(NAME)
    assert look.state == seen
    if seen == "failed":
        assert f"ended as {state}" in look.text
        assert f"{kfp.url}/#/runs/details/{kfp.run(NAME)['run_id']}" in look.text


def test_why_a_run_failed_is_what_its_step_said(kfp: FakeKfp, home: Home) -> None:
    runs, job = runs_on(kfp, home), job_of(home)
    run_journal.write_failure(home.store, job.key, "train", ValueError("of an earlier run"))
    run_journal.write_cost(home.store, job.key, "intake", Cost(1.0, 1.0))
    runs.start(NAME, job)
    kfp.run(NAME).update(state="FAILED", error={"code": 13, "message": "pod was evicted"})
    look = runs.look(NAME)
    assert look.failure is None and "pod was evicted" in look.text
    run_journal.write_failure(home.store, job.key, "train", ValueError("out of memory"))
    told = Failure("train", "ValueError", ("out of memory",))
    assert runs_on(kfp, home).look(NAME).failure == told
    assert run_journal.read_costs(home.store, job.key) == {}  # an earlier run's are forgotten


def test_a_stopped_run_ends_and_may_be_stopped_again(kfp: FakeKfp, home: Home) -> None:
    runs = runs_on(kfp, home)
    runs.stop(NAME)  # no error where there is none
    runs.start(NAME, job_of(home))
    for _ in range(2):
        runs.stop(NAME)
    assert kfp.run(NAME)["state"] == "CANCELED"
    assert kfp.count("POST", f"/runs/{kfp.run(NAME)['run_id']}:terminate") == 1
    assert runs.look(NAME).state == "failed"


def test_of_two_runs_with_one_name_the_later_is_ended(kfp: FakeKfp, home: Home) -> None:
    """A server may make a run after a gateway has given up on it, and be asked again meanwhile."""
    runs = runs_on(kfp, home)
    first, later, over = (kfp.add_run(NAME, state) for state in ("RUNNING", "RUNNING", "SUCCEEDED"))
    kfp.runs.reverse()
    assert runs.look(NAME) == Look("running")
    assert [run["state"] for run in (first, later, over)] == ["RUNNING", "CANCELED", "SUCCEEDED"]


@pytest.mark.parametrize("blind", [False, True])
def test_a_run_is_found_on_every_page_even_where_filters_do_nothing(
    home: Home, blind: bool
) -> None:
    with served(FakeKfp(page=2, blind=blind)) as kfp:
        for number in range(5):
            kfp.add_run(f"other-{number}")
        kfp.add_run(NAME, "SUCCEEDED")
        kfp.add_run("more")
        assert runs_on(kfp, home).look(NAME) == Look("succeeded")
        assert runs_on(kfp, home).look("unheard-of") == Look("absent")


def test_ids_that_somebody_deleted_are_made_again(kfp: FakeKfp, home: Home) -> None:
    runs = runs_on(kfp, home)
    runs.start(NAME, job_of(home))
    for kept in (kfp.pipelines, kfp.versions, kfp.experiments):
        kept.clear()
    runs.start("pets-0002-mimi-0a1b2c3d-1", job_of(home, "mimi"))
    assert len(kfp.runs) == 2
    assert len(kfp.pipelines) == 1


def test_pipeline_root_service_account_and_namespace_are_handed_on(home: Home) -> None:
    with served(FakeKfp(multi_user=True)) as kfp:
        where = {"namespace": "team", "pipeline_root": "s3://kfp", "service_account": "steps"}
        runs = runs_on(kfp, home, **where)
        runs.prepare()
        runs.start(NAME, job_of(home))
        assert kfp.run(NAME)["runtime_config"]["pipeline_root"] == "s3://kfp"
        assert kfp.run(NAME)["service_account"] == "steps"
        assert kfp.experiments[0]["namespace"] == "team"
        with pytest.raises(PlatformError, match=r"expected cluster\.namespace"):
            runs_on(kfp, home).prepare()
        with pytest.raises(PlatformError, match="HTTP 403"):
            runs_on(kfp, home, namespace="others").prepare()
