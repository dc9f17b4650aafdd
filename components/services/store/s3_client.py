"""How boto3 is set up here, and what its errors are called in our words."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from components.services.store.objects import missing
from l2dm.errors import BadStore, ClosedStore, L2dmError, NoSuchObject

ATTEMPTS = 5  # requests until one succeeds, unless AWS_MAX_ATTEMPTS says otherwise
CONNECT_SECONDS, READ_SECONDS = 5, 60
HASTY_ATTEMPTS, HASTY_SECONDS = 2, 5  # of what must be known within a quarter of a minute
CONNECTIONS = 32  # kept open, for threads that share a client

CONDITIONS = "use a local folder, AWS S3, MinIO, or Ceph radosgw 16 in a bucket without versions"
CLOSED = (301, 401, 403, 404)  # HTTP: asking again gets the same answer
KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or the profile) and the bucket's policy"
REGION = "set AWS_REGION to the bucket's region"
ADVICE = {
    "NoSuchBucket": "create the bucket, or name another",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NotImplemented": CONDITIONS,
    "PermanentRedirect": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
}


def connect(*, hasty: bool = False) -> Any:
    """A client from the usual AWS settings. Raises BadStore when they are none.

    hasty: gives up within a quarter of a minute, whatever AWS_MAX_ATTEMPTS says.
    """
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = botocore.session.get_session()
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_when)
    try:
        # Waits are drawn at random up to 1, 2, 4 and 8 seconds, longer than a server's restart.
        # Mode "standard" waits at most 0.75 s in all, and its threads share 35 retries.
        retries: dict[str, Any] = {"mode": "legacy"}
        if hasty or session.get_config_variable("max_attempts") is None:
            retries["total_max_attempts"] = HASTY_ATTEMPTS if hasty else ATTEMPTS
        config = Config(
            retries=retries,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=HASTY_SECONDS if hasty else READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",  # else presigned URLs leave their headers unsigned
            # bodies are signed with their sha256; radosgw 16 knows no checksum trailers
            request_checksum_calculation="when_required",
        )
        return boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise BadStore(
            f"expected AWS settings for an object store, found {type(error).__name__}; check "
            "AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE"
        ) from None


def _when(text: Any) -> datetime:
    """A listing's time stamps: botocore's own parser takes two thirds of the time of a listing."""
    from botocore.utils import parse_timestamp

    if isinstance(text, str) and text.endswith("Z") and "T" in text:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    return parse_timestamp(text)  # type: ignore[no-any-return]


def endpoint(client: Any) -> str:
    """Host and port that a client talks to, without a user and password that the URL may hold."""
    url = urlsplit(client.meta.endpoint_url)
    return f"{url.hostname}:{url.port}" if url.port else str(url.hostname)


def code_of(error: Any) -> tuple[str, int]:
    """S3's name and HTTP's number of a ClientError."""
    answer = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(answer.get("Error", {}).get("Code", "")), int(status)


@contextmanager
def told(client: Any, bucket: str, where: str, key: str) -> Iterator[None]:
    """Say in our words what boto3 raises: NoSuchObject, or BadStore without a secret in it.

    A store that is missing or closed to us is a ClosedStore.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        code, status = code_of(error)
        if status == 404 and code != "NoSuchBucket" and _is_there(client, bucket, code):
            raise NoSuchObject(missing(key, where)) from None
        raise _refused(code, status, where) from None
    except RetriesExceededError as error:
        raise _unreached(error.last_exception, where) from None
    except BotoCoreError as error:
        raise _unreached(error, where) from None


def _is_there(client: Any, bucket: str, code: str) -> bool:
    """A HEAD says 404 for a missing object and for a missing bucket alike."""
    from botocore.exceptions import ClientError

    if code == "NoSuchKey":
        return True
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return code_of(error)[1] != 404  # closed to us, then, but there
    return True


def _refused(code: str, status: int, where: str) -> L2dmError:
    advice = "run it again, and look into the log of the store if it stays"
    if status in (401, 403):
        advice = KEYS
    elif status == 404:
        code = "NoSuchBucket"
    elif status == 301:
        advice = REGION
    kind = ClosedStore if status in CLOSED or ADVICE.get(code) == REGION else BadStore
    return kind(
        f"expected {where} to be open to us, found {code} (HTTP {status}); "
        f"{ADVICE.get(code, advice)}"
    )


def _unreached(error: Exception, where: str) -> L2dmError:
    from botocore import exceptions as raised

    keys = (raised.NoCredentialsError, raised.PartialCredentialsError)
    if isinstance(error, (*keys, raised.CredentialRetrievalError)):
        return ClosedStore(f"expected credentials for {where}, found none that are whole; {KEYS}")
    network = (raised.HTTPClientError, raised.ConnectionError, raised.IncompleteReadError, OSError)
    if isinstance(error, network):
        return BadStore(
            f"expected an answer from {where}, found {type(error).__name__}; start the store, or "
            "check AWS_ENDPOINT_URL and the network"
        )
    return BadStore(
        f"expected {where} to be an object store, found {type(error).__name__}; check the bucket's "
        "name and the AWS settings"
    )
