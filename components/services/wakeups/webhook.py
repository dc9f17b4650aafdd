"""A small HTTP server for events: one request per connection, limits on everything, no TLS.

It answers GET with its health and the pages that it is given, without the token of who posts.
TLS and rate limits belong to the ingress in front of it.
"""

import hmac
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from components.services.wakeups.events import MAX_BODY
from l2dm.errors import BadInput, words

MAX_CONNECTIONS = 64  # at once; one more, and the oldest is hung up on: it may only be slow
SILENCE = 10.0  # seconds that a client may say nothing
MAX_DRAINED = 16 * MAX_BODY  # bytes of a refused body that are read, so that the answer is too
TICK = 0.2  # seconds until close() is noticed
HEALTH = "/healthz"

Pages = Mapping[str, Callable[[], str]]  # path: the text of that page, asked for in any thread

log = logging.getLogger(__name__)


class Webhook:
    """Serves in threads of its own from now on. `hear` gets each body, and says what is wrong."""

    def __init__(
        self,
        host: str,
        port: int,
        hear: Callable[[bytes], str],
        token: str | None = None,
        pages: Pages | None = None,
    ) -> None:
        """Raises BadInput when it cannot listen there, and for a token that is empty."""
        if token is not None and not token.strip():
            raise BadInput("expected a token for the webhook, found an empty one; set it, or none")
        try:
            secret, answers = token.strip() if token else None, {HEALTH: lambda: "ok"}
            self._server = _Server(host, port, hear, secret, {**answers, **(pages or {})})
        except (OSError, OverflowError) as error:
            raise BadInput(
                f"expected to listen on {host}:{port}, found {words(error)}; choose a free port "
                "of this machine"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(TICK,), name="webhook", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Hang up on everybody and end the threads."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # of the five by default, a sixth sender at once waits for a second

    def __init__(
        self,
        host: str,
        port: int,
        hear: Callable[[bytes], str],
        token: str | None,
        pages: Pages,
    ) -> None:
        self.hear, self.token, self.pages = hear, token, pages
        self._serving: dict[Any, threading.Thread] = {}
        self._leaving = set[Any]()  # those of them that were told to hang up
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Request)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        # One that was told to leave may take a moment: in a burst the next one is told as well.
        staying = [one for one in tuple(self._serving) if one not in self._leaving]
        if len(staying) >= MAX_CONNECTIONS:
            self._leaving.add(staying[0])
            with suppress(OSError):  # it ended meanwhile
                staying[0].shutdown(socket.SHUT_RDWR)
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="webhook-request",
            daemon=True,
        )
        self._serving[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._serving.pop(request, None)
        self._leaving.discard(request)

    def server_close(self) -> None:
        super().server_close()
        for request, thread in tuple(self._serving.items()):
            with suppress(OSError):  # it ended meanwhile
                request.shutdown(socket.SHUT_RDWR)  # its thread reads the end of the request
            thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        hung_up = isinstance(sys.exception(), OSError)
        log.log(logging.DEBUG if hung_up else logging.ERROR, "webhook", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENCE
    protocol_version = "HTTP/1.1"  # curl asks whether to send a longer body, and waits for a second
    server_version, sys_version = "l2dm", ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is not None:
            self._answer(200, page())
        else:
            known = " and ".join(sorted(self.server.pages))
            self._answer(404, f"events are posted; this answers GET {known} only")

    def do_POST(self) -> None:
        given = self.headers.get("Content-Length", "")
        length = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None
        if not self._is_allowed():
            self._refuse(401, "expected the token as Authorization: Bearer", length)
        elif length is None:
            self._refuse(400, "expected a body with its Content-Length", length)
        elif length > MAX_BODY:
            self._refuse(413, f"expected at most {MAX_BODY:,} bytes, found {length:,}", length)
        else:
            problem = self.server.hear(self.rfile.read(length))
            self._answer(400 if problem else 204, problem)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("webhook: %r", format % args)  # a request line may hold anything

    def _is_allowed(self) -> bool:
        if self.server.token is None:
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        # headers are bytes, which http.server reads as latin-1
        same = hmac.compare_digest(
            token.strip().encode("latin-1", "replace"), self.server.token.encode()
        )
        return same and scheme.lower() == "bearer"

    def _refuse(self, status: int, text: str, length: int | None) -> None:
        log.warning("webhook: answered %d: %s", status, text)
        self._answer(status, text)
        left = min(length or 0, MAX_DRAINED)
        while left > 0 and (read := len(self.rfile.read(min(left, 2**16)))):
            left -= read

    def _answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode("utf-8", "backslashreplace") if text else b""
        self.send_response(status)
        self.send_header("Connection", "close")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status != 204:
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
