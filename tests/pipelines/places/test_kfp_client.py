"""Reaching Kubeflow Pipelines: tokens, certificates, what keeps runs from it."""

import base64
import datetime
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from components.services.store.home import Home
from l2dm.errors import BadSettings, PlatformError
from pipelines.places.cluster import require_cluster
from pipelines.places.kfp_client import audiences
from pipelines.places.runs import Look
from pipelines.places.settings import parse
from tests.worlds.cluster_world import NAME, job_of, runs_on
from tests.worlds.fake_kfp import FakeKfp, served

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


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
