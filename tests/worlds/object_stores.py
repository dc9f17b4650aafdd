"""Object stores to test against: a folder, moto in this process, radosgw when servers run."""

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects
from components.services.store.s3 import S3Objects
from tests.integration import servers

BUCKETS = ["moto", *(["radosgw"] if servers.told() else [])]  # make test-integration starts it
SMALLEST_PART = 5 * 2**20  # S3's own
AT_HOME = {  # no credentials of whoever runs the tests, and no look-up at a cloud's address
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
MOTO_KEYS = {
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "moto",
    "AWS_SECRET_ACCESS_KEY": "moto-secret",
}


@dataclass(frozen=True)
class Bucket:
    """A bucket of a test, reached by the AWS settings of the environment."""

    kind: str
    name: str
    prefix: str
    client: Any  # bare boto3, for what is done behind the store's back
    endpoint: str
    secret: str = field(repr=False)

    def objects(self, client: Any = None) -> S3Objects:
        return S3Objects(self.name, self.prefix, client=client, part=SMALLEST_PART)

    def put(self, key: str, data: bytes, **more: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=data, **more)

    def metadata(self, key: str) -> dict[str, str]:
        answer = self.client.head_object(Bucket=self.name, Key=f"{self.prefix}/{key}")
        return dict(answer["Metadata"])


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=BUCKETS)
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return _bucket(request.param, request, monkeypatch)


@pytest.fixture
def moto_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return _bucket("moto", request, monkeypatch)


@pytest.fixture(params=["folder", *BUCKETS])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    return _bucket(request.param, request, monkeypatch).objects()


def _bucket(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    where = servers.told()
    if kind == "radosgw":
        assert where is not None
        settings = AT_HOME | where.aws
    else:
        settings = AT_HOME | MOTO_KEYS | {"AWS_ENDPOINT_URL": request.getfixturevalue("moto")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    import boto3
    from botocore.config import Config

    config = Config(request_checksum_calculation="when_required")
    # a session of its own: boto3's default one keeps the credentials of the first test
    client = boto3.session.Session().client("s3", config=config)
    # on radosgw a new bucket takes long: one for all, and a prefix for each
    name = "objects" if kind == "radosgw" else f"bucket-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    secret = settings["AWS_SECRET_ACCESS_KEY"]
    return Bucket(kind, name, uuid.uuid4().hex, client, settings["AWS_ENDPOINT_URL"], secret)


@dataclass
class Meddler:
    """A boto3 client with some methods replaced; each gets the real one and its arguments."""

    real: Any
    instead: dict[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)
        if name not in self.instead:
            return method
        return lambda **arguments: self.instead[name](method, **arguments)
