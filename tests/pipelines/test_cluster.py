"""Runs on Kubeflow Pipelines: kfp's real client against an API that remembers and fails."""

import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dispatch_world import World, expire
from fake_kfp import FakeKfp, served
from object_stores import Bucket
from typer.testing import CliRunner

from components.services import journal
from components.services.home import Home
from components.services.journal import Cost, Failure
from l2dm.errors import BadSettings, PlatformError
from pipelines.cli import app
from pipelines.cluster import ClusterRuns, require_cluster
from pipelines.compilation import compile_pipeline
from pipelines.dispatch import Dispatcher, Settings
from pipelines.kfp_api import KfpApi
from pipelines.kfp_client import Connection, audiences
from pipelines.runs import Look
from pipelines.settings import Cluster, load, parse
from pipelines.submit import Job

EXAMPLE = Path(__file__).parents[2] / "docs" / "l2dm.toml"
NAME = "pets-0001-rex-0a1b2c3d-1"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "L2DM_KFP_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    with served(FakeKfp()) as fake:
        yield fake


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


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
    assert [one["display_name"] for one in kfp.pipelines] == ["l2dm-learn-concept"]
    yaml = compile_pipeline("learn_concept", tmp_path).read_bytes()
    first, second, third = [one["display_name"] for one in kfp.versions]
    assert first == "l2dm-learn-concept"  # the server's own: every pipeline is born with one
    assert second == hashlib.sha256(yaml).hexdigest()[:16]
    assert third not in (first, second)
    runs = ClusterRuns(home, other)
    runs.start(NAME, job_of(home))
    chosen = kfp.run(NAME)["pipeline_version_reference"]["pipeline_version_id"]
    assert [
        one["display_name"] for one in kfp.versions if one["pipeline_version_id"] == chosen
    ] == [third]


def test_the_placed_pipeline_with_its_platform_part_is_one_that_the_server_takes(
    kfp: FakeKfp, home: Home
) -> None:
    settings = load(EXAMPLE)
    api = KfpApi(Connection(Cluster(host=kfp.url)))
    ClusterRuns(home, settings, api).prepare()
    assert len(kfp.versions) == 2


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
    monkeypatch.setattr("pipelines.kfp_client.TIMEOUT", (0.2, 0.2))
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
    journal.write_failure(home.store, job.key, "train", ValueError("of an earlier run"))
    journal.write_cost(home.store, job.key, "intake", Cost(1.0, 1.0))
    runs.start(NAME, job)
    kfp.run(NAME).update(state="FAILED", error={"code": 13, "message": "pod was evicted"})
    look = runs.look(NAME)
    assert look.failure is None and "pod was evicted" in look.text
    journal.write_failure(home.store, job.key, "train", ValueError("out of memory"))
    told = Failure("train", "ValueError", ("out of memory",))
    assert runs_on(kfp, home).look(NAME).failure == told
    assert journal.read_costs(home.store, job.key) == {}  # an earlier run's are forgotten


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


def token_for(audience: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"aud": audience}).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def test_a_projected_token_is_read_again_for_every_request(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with served(FakeKfp(token=token_for(["pipelines.kubeflow.org"]))) as kfp:
        file.write_text(kfp.token + "\n")
        runs = runs_on(kfp, home, token_path=str(file))
        runs.prepare()
        kfp.token = token_for("pipelines.kubeflow.org")  # the kubelet renewed it
        with pytest.raises(PlatformError, match="HTTP 401"):
            runs.look(NAME)
        file.write_text(kfp.token)
        assert runs.look(NAME) == Look("absent")
        file.write_text(token_for(["somebody.else"]))
        with pytest.raises(PlatformError, match=r"for 'pipelines.kubeflow.org', found \['somebody"):
            runs.look(NAME)
        file.unlink()
        with pytest.raises(PlatformError, match="could not read it"):
            runs.look(NAME)


def test_a_token_of_the_environment_serves_outside_a_cluster(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(FakeKfp(token="opaque")) as kfp:
        with pytest.raises(PlatformError, match="HTTP 401"):
            runs_on(kfp, home).prepare()
        monkeypatch.setenv("L2DM_KFP_TOKEN", "opaque")
        runs_on(kfp, home).prepare()
        monkeypatch.setenv("OURS", "opaque")
        monkeypatch.delenv("L2DM_KFP_TOKEN")
        runs_on(kfp, home, token_variable="OURS").prepare()


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.W10.c", ""])
def test_a_token_that_is_no_jwt_says_nothing_about_its_audience(token: str) -> None:
    assert audiences(token) is None


def authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself: its file, and a server's context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca, both = folder / "ca.pem", folder / "both.pem"
    ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    both.write_bytes(private + ca.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return ca, context


def test_a_certificate_of_our_own_authority_is_trusted_when_it_is_named(
    home: Home, tmp_path: Path
) -> None:
    ca, context = authority(tmp_path)
    with served(FakeKfp(), context) as kfp:
        runs_on(kfp, home, ca=str(ca)).prepare()
        with pytest.raises(PlatformError, match=r"a certificate that we trust.*cluster\.ca"):
            runs_on(kfp, home).prepare()


def test_nothing_is_printed_where_results_go(
    kfp: FakeKfp, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = runs_on(kfp, home)
    runs.prepare()
    runs.start(NAME, job_of(home))
    assert capsys.readouterr().out == ""


def test_what_keeps_runs_from_a_cluster_is_listed_at_once(tmp_path: Path) -> None:
    settings = parse({"cluster": {"host": "https://k", "ca": str(tmp_path / "no.pem")}})
    with pytest.raises(BadSettings) as caught:
        require_cluster(Home.at(tmp_path), settings, "/my/base")
    told = "\n".join(caught.value.problems)
    for what in ("s3://bucket/prefix", "image", "MLFLOW_TRACKING_URI", "cluster.ca", "/my/base"):
        assert what in told
    assert len(caught.value.problems) == 5
    with pytest.raises(BadSettings, match=r"cluster\.host"):
        require_cluster(Home.at("s3://bucket/l2dm"), parse({}), "pocket")


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
            Settings("pocket", "{}"),
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
            journal.write_failure(job.home.store, job.key, look.failure.step, RuntimeError(text))
        self.kfp.run(name)["state"] = "FAILED" if look.state == "failed" else "SUCCEEDED"


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
    """Once before it was heard, once after: the next dispatcher ends what is there, tries again."""
    cluster = ClusterWorld(tmp_path, kfp)
    cluster.world.upload("pets", "rex")
    cluster.dispatcher.reconcile("pets")
    (name,) = [run["display_name"] for run in kfp.runs]
    expire(cluster.world)
    following = cluster.another()
    assert following.reconcile("pets") == "retried"  # the lease was lost: that run may not promote
    assert kfp.run(name)["state"] == "CANCELED"
    cluster.world.now += 60
    kfp.fail("POST", "/runs$", "dropped", times=100)
    assert following.reconcile("pets") == "broken"
    kfp.faults.clear()
    assert following.reconcile("pets") == "retried"  # recorded as started, but nobody heard of it
    cluster.world.now += 120
    assert following.reconcile("pets") == "started"
    assert [run["state"] for run in kfp.runs] == ["CANCELED", "PENDING"]
    cluster.carry_out(kfp.runs[-1]["display_name"])
    assert following.reconcile("pets") == "idle"
    assert cluster.world.chain() == [(0, 1)]


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
