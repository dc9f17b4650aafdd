"""The connection to Kubeflow Pipelines: who we are, what is tried again, what errors say.

kfp's own client asks without a time limit, tries nothing again and prints to standard output.
"""

import base64
import contextlib
import io
import json
import os
import random
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import kfp
from kfp.client import KF_PIPELINES_SA_TOKEN_PATH
from kfp.client.token_credentials_base import TokenCredentialsBase
from kfp_server_api import ApiException
from urllib3 import Retry
from urllib3.exceptions import HTTPError, SSLError

from l2dm.errors import PlatformError
from pipelines.places.compilation import quiet
from pipelines.places.settings import NOUN, Cluster

T = TypeVar("T")
TRIES = 3  # with TIMEOUT in less time than a lease lasts
WAIT = 0.5  # seconds before the second try, doubled for each further one, half of it by chance
RECOVERY = 10.0  # seconds after a failure in which one try is enough: others wait behind this one
TIMEOUT = (5.0, 15.0)  # seconds to connect, seconds until the next byte; kfp itself has none
AGAIN = (408, 429, 500, 502, 503, 504)
TAKEN = 409
WHAT_TO_DO = {
    401: "the token was refused: look at cluster.token_path and cluster.audience of "
    f"{NOUN}, and whether the token has expired",
    403: "the service account may not do this: bind it to a role that may create and read runs, "
    "experiments and pipelines in the namespace (kubeflow-edit), and look at cluster.namespace",
    404: "nothing is there: look at the path in cluster.host (the API is <host>/apis/v2beta1), "
    "and whether somebody deleted it",
}


class Lost(PlatformError):
    """No answer, or one that does not tell whether it was done."""


class Taken(PlatformError):
    """Somebody made one of that name."""


class Missing(PlatformError):
    """What was named is not there."""


class Connection:
    """One server, asked patiently. Raises PlatformError."""

    def __init__(self, cluster: Cluster, pause: Callable[[float], None] = time.sleep) -> None:
        self.cluster, self._pause = cluster, pause
        self._failed = -RECOVERY

    @cached_property
    def client(self) -> Any:
        """The kfp client; made on first use, because it may ask the server."""
        cluster = self.cluster
        client = _Client(
            host=cluster.host,
            namespace=cluster.namespace or "kubeflow",  # kfp's word for: one user
            ssl_ca_cert=cluster.ca or None,
            **_who(cluster),
        )
        rest = client._run_api.api_client.rest_client
        rest.request = _timely(rest.request)
        # tries are ours: the library's own come at once, and multiply the time limit
        rest.pool_manager.connection_pool_kw["retries"] = Retry(TRIES, connect=0, read=0, other=0)
        return client

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """The answer to something that may be asked twice."""
        recovering = time.monotonic() - self._failed < RECOVERY
        tries = 1 if recovering else TRIES
        for number in range(1, tries + 1):
            try:
                return self._once(what, call)
            except Lost:
                if number == tries:
                    self._failed = time.monotonic()
                    raise
                self._wait(number)
        raise AssertionError("unreachable")

    def ensure(self, what: str, find: Callable[[], T | None], make: Callable[[], Any]) -> T:
        """What `find` finds, after `make` where it finds nothing.

        Whoever made it: an answer that was lost, or another one who was faster, is found next.
        """
        for number in range(1, TRIES + 1):
            found = find()
            if found is not None:
                return found
            try:
                self._once(what, make)
                break
            except (Lost, Taken):
                if number == TRIES:
                    raise
                self._wait(number)
        found = find()
        if found is None:  # to make it again would double it
            raise PlatformError(
                f"{what}: expected to find at {self.cluster.host} what was made there, found "
                "nothing of that name; look whether the server keeps names as they are given"
            )
        return found

    def _wait(self, number: int) -> None:
        self._pause(WAIT * 2 ** (number - 1) * random.uniform(0.5, 1.0))

    def _once(self, what: str, call: Callable[[], T]) -> T:
        """One try. kfp prints links to standard output, which is the result's."""
        try:
            with contextlib.redirect_stdout(io.StringIO()), quiet():
                return call()
        except ApiException as error:
            raise self._refusal(what, error) from error
        except HTTPError as error:
            raise self._silence(what, error) from error

    def _refusal(self, what: str, error: Any) -> PlatformError:
        if not error.status:  # kfp's client: TLS
            return self._silence(what, SSLError(error.reason))
        do = WHAT_TO_DO.get(error.status, "")
        kind = {TAKEN: Taken, 404: Missing}.get(error.status, PlatformError)
        if error.status in AGAIN:
            kind, do = Lost, "it was tried again; look at the API server"
        return kind(
            f"{what}: expected Kubeflow Pipelines at {self.cluster.host} to do it, found HTTP "
            f"{error.status} ({_words(error)}){'; ' + do if do else ''}"
        )

    def _silence(self, what: str, error: HTTPError) -> PlatformError:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, SSLError):
            return PlatformError(
                f"{what}: expected {self.cluster.host} to show a certificate that we trust, "
                f"found: {reason}; name the file of its authority in cluster.ca of {NOUN}"
            )
        return Lost(
            f"{what}: expected an answer of {self.cluster.host}, found none ({reason}); look "
            f"whether it runs, and at cluster.host of {NOUN}"
        )


class _Client(kfp.Client):  # type: ignore[misc]
    """kfp's client without its five tries with tracebacks, and without a file in the home."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        return self._healthz_api.healthz_service_get_healthz()

    def set_user_namespace(self, namespace: str) -> None:
        self._context_setting["namespace"] = namespace


class FileToken(TokenCredentialsBase):  # type: ignore[misc]
    """A service account's token that the kubelet projects into a file and renews there."""

    def __init__(self, path: Path, audience: str) -> None:
        self._path, self._audience = path, audience

    def refresh_api_key_hook(self, config: Any) -> None:
        """Called before every request. Raises PlatformError."""
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            raise PlatformError(
                f"expected a service account's token in {self._path}, could not read it "
                f"({error.strerror}); mount a projected token, or name its file in "
                f"cluster.token_path of {NOUN}"
            ) from error
        told = audiences(token)
        if self._audience and told is not None and self._audience not in told:
            raise PlatformError(
                f"expected the token in {self._path} to be for {self._audience!r}, found "
                f"{list(told)}; set the audience of the projected token, or cluster.audience"
            )
        config.api_key["authorization"] = token


def audiences(token: str) -> tuple[str, ...] | None:
    """For whom a token says it is; None where it cannot be read. Nothing is verified here."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        told = claims.get("aud", [])
    except (IndexError, ValueError, AttributeError, RecursionError):
        return None
    return (told,) if isinstance(told, str) else tuple(map(str, told))


def _who(cluster: Cluster) -> dict[str, Any]:
    """How the client proves who we are: a file of the settings, a variable, the pod's own file."""
    token = os.environ.get(cluster.token_variable, "")
    if cluster.token_path:
        return {"credentials": FileToken(Path(cluster.token_path), cluster.audience)}
    if token:
        return {"existing_token": token}
    if Path(KF_PIPELINES_SA_TOKEN_PATH).exists():
        return {"credentials": FileToken(Path(KF_PIPELINES_SA_TOKEN_PATH), cluster.audience)}
    return {}


def _timely(request: Callable[..., Any]) -> Callable[..., Any]:
    """Its client hands no time limit on: a server that never answers would stop the dispatcher."""

    def ask(*args: Any, _request_timeout: Any = None, **more: Any) -> Any:
        return request(*args, _request_timeout=_request_timeout or TIMEOUT, **more)

    return ask


def _words(error: Any) -> str:
    """What the server says, short; its answer is JSON with a message, or a proxy's page."""
    try:
        body = json.loads(error.body)
        text = body.get("message") or body.get("error") or ""
    except (TypeError, ValueError, AttributeError, RecursionError):
        text = error.body if isinstance(error.body, str) else ""
    return " ".join(str(text).split())[:300] or str(error.reason)
