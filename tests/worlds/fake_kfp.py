"""A Kubeflow Pipelines API over HTTP that remembers: pipelines, versions, experiments and runs.

As strict as the real one where that matters to us: names of pipelines, versions and experiments are
unique and those of runs are not, a run's arguments must be those of its pipeline, listings have
pages, and an ended run cannot be ended. It can be told to fail in every way that networks fail.
"""

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

ROOT = "/apis/v2beta1"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass
class Fault:
    """What happens to requests that match, so many times.

    kind: an HTTP status, "lost" (done, but the answer never arrives), "dropped" (not done, and no
    answer) or "silent" (no answer for a while).
    """

    method: str
    path: str
    kind: int | str
    times: int = 1
    spare: int = 0  # matching requests that pass before


@dataclass
class Refusal(Exception):
    status: int
    message: str


@dataclass
class FakeKfp:
    """State of the server, for a test to look at and to change."""

    multi_user: bool = False
    token: str = ""
    page: int = 2  # objects of a listing at once, whatever was asked for
    blind: bool = False  # leaves filters out of account
    hiding: bool = False  # keeps runs that its listings do not show
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.RLock()

    def fail(self, method: str, path: str, kind: int | str, times: int = 1, spare: int = 0) -> None:
        self.faults.append(Fault(method, path, kind, times, spare))

    def run(self, name: str) -> dict[str, Any]:
        (found,) = (run for run in self.runs if run["display_name"] == name)
        return found

    def add_run(self, name: str, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
        """A run that somebody else made."""
        run = {"display_name": name, "state": state, **self._made("run_id"), **more}
        self.runs.append(run)
        return run

    def count(self, method: str, path: str) -> int:
        return sum(one.startswith(f"{method} {ROOT}{path}") for one in self.requests)

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for one in self.faults:
                if one.times and one.method == method and re.search(one.path, path):
                    if one.spare:
                        one.spare -= 1
                        continue
                    one.times -= 1
                    return one
        return None

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        with self._lock:
            return self._answer(method, path.removeprefix(ROOT), query, body)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        match (method, path.strip("/").split("/")):
            case ("GET", ["healthz"]):
                return {"multi_user": self.multi_user}
            case ("GET", ["pipelines", pipeline, "versions"]):
                mine = [one for one in self.versions if one["pipeline_id"] == pipeline]
                return self._listed("pipeline_versions", mine, query)
            case ("GET", ["pipelines"]):
                return self._listed("pipelines", self.pipelines, query)
            case ("GET", ["experiments"]):
                self._require_namespace(query)
                return self._listed("experiments", self.experiments, query)
            case ("GET", ["runs"]):
                self._require_namespace(query)
                return self._listed("runs", [] if self.hiding else self.runs, query)
            case ("GET", ["recurringruns"]):
                self._require_namespace(query)
                return self._listed("recurringRuns", self.recurring, query)
            case ("POST", ["recurringruns"]):
                return self._kept(self.recurring, {**body, **self._made("recurring_run_id")})
            case ("DELETE", ["recurringruns", which]):
                return self._forget(which)
            case ("POST", ["pipelines", "upload"]):
                return self._upload(query["name"], body)
            case ("POST", ["pipelines", "upload_version"]):
                return self._upload_version(query["name"], query["pipelineid"], body)
            case ("POST", ["experiments"]):
                self._require_namespace(body)
                self._require_new(self.experiments, body["display_name"])
                return self._kept(self.experiments, {**body, **self._made("experiment_id")})
            case ("POST", ["runs"]):
                return self._start(body)
            case ("POST", ["runs", which]) if which.endswith(":terminate"):
                return self._terminate(which.removesuffix(":terminate"))
        raise Refusal(404, f"no {method} {path}")

    def _listed(self, kind: str, every: list[Any], query: dict[str, str]) -> dict[str, Any]:
        wanted = every if self.blind else [one for one in every if _matches(one, query)]
        at = int(query.get("page_token") or 0)
        size = min(self.page, int(query["page_size"])) if "page_size" in query else self.page
        found: dict[str, Any] = {kind: wanted[at : at + size]} if wanted else {}
        if at + size < len(wanted):
            found["next_page_token"] = str(at + size)
        return found

    def _upload(self, name: str, package: bytes) -> dict[str, Any]:
        self._require_new(self.pipelines, name)
        made = self._kept(self.pipelines, {"display_name": name, **self._made("pipeline_id")})
        self._add_version(name, made["pipeline_id"], package)  # as the real one does
        return made

    def _upload_version(self, name: str, pipeline: str, package: bytes) -> dict[str, Any]:
        if all(one["pipeline_id"] != pipeline for one in self.pipelines):
            raise Refusal(404, f"no pipeline {pipeline}")
        mine = [one for one in self.versions if one["pipeline_id"] == pipeline]
        self._require_new(mine, name)
        return self._add_version(name, pipeline, package)

    def _add_version(self, name: str, pipeline: str, package: bytes) -> dict[str, Any]:
        spec, *platform = yaml.safe_load_all(package)
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())  # raises for unknown fields
        for one in platform:
            json_format.ParseDict(one, pipeline_spec_pb2.PlatformSpec())
        made = {"display_name": name, "pipeline_id": pipeline, **self._made("pipeline_version_id")}
        return self._kept(self.versions, {**made, "pipeline_spec": spec})

    def _start(self, body: dict[str, Any]) -> dict[str, Any]:
        chosen = body["pipeline_version_reference"]["pipeline_version_id"]
        found = [one for one in self.versions if one["pipeline_version_id"] == chosen]
        if not found:
            raise Refusal(404, f"no version {chosen}")
        if all(one["experiment_id"] != body["experiment_id"] for one in self.experiments):
            raise Refusal(404, f"no experiment {body['experiment_id']}")
        inputs = found[0]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        given = body["runtime_config"]["parameters"]
        if set(inputs) != set(given):
            raise Refusal(400, f"arguments {sorted(given)} are not {sorted(inputs)}")
        return self.add_run(**{"name": body.pop("display_name"), **body, "state": "PENDING"})

    def _terminate(self, number: str) -> dict[str, Any]:
        found = [run for run in self.runs if run["run_id"] == number]
        if not found:
            raise Refusal(404, f"no run {number}")
        if found[0]["state"] in ENDED:
            raise Refusal(400, f"run {number} has ended")
        found[0]["state"] = "CANCELED"
        return {}

    def _forget(self, number: str) -> dict[str, Any]:
        found = [one for one in self.recurring if one["recurring_run_id"] == number]
        if not found:
            raise Refusal(404, f"no recurring run {number}")
        self.recurring.remove(found[0])
        return {}

    def _made(self, number: str) -> dict[str, str]:
        self._clock += timedelta(seconds=1)
        return {number: uuid.uuid4().hex, "created_at": self._clock.isoformat()}

    def _kept(self, where: list[dict[str, Any]], made: dict[str, Any]) -> dict[str, Any]:
        where.append(made)
        return made

    def _require_new(self, known: list[dict[str, Any]], name: str) -> None:
        if any(one["display_name"] == name for one in known):
            raise Refusal(409, f"{name} exists already")

    def _require_namespace(self, given: dict[str, Any]) -> None:
        if self.multi_user and given.get("namespace") != "team":
            raise Refusal(400 if not given.get("namespace") else 403, "not your namespace")


def _matches(one: dict[str, Any], query: dict[str, str]) -> bool:
    predicates = json.loads(query["filter"])["predicates"] if query.get("filter") else []
    for predicate in predicates:
        assert predicate["operation"] in ("EQUALS", 1)
        if one[predicate["key"]] != predicate["stringValue"]:
            return False
    return True


@contextmanager
def served(fake: FakeKfp, tls: Any = None) -> Iterator[FakeKfp]:
    """The server on a port of this machine. tls: an SSLContext of its own."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

        def _serve(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.requests.append(f"{self.command} {address.path}")
            fault = fake.fault(self.command, address.path)
            if fault is not None and fault.kind == "dropped":
                return self._hang_up()
            if fault is not None and fault.kind == "silent":
                time.sleep(1)
                return self._hang_up()
            if fault is not None and isinstance(fault.kind, int):
                return self._say(fault.kind, {"message": "as it was told to"})
            try:
                self._require_token()
                query = {name: one[0] for name, one in parse_qs(address.query).items()}
                found = fake.answer(self.command, address.path, query, self._read(body))
            except Refusal as refusal:
                return self._say(refusal.status, {"message": refusal.message})
            if fault is not None:
                return self._hang_up()
            return self._say(200, found)

        do_GET = do_POST = do_DELETE = _serve

        def _require_token(self) -> None:
            if fake.token and self.headers.get("Authorization") != f"Bearer {fake.token}":
                raise Refusal(401, "who are you?")

        def _read(self, body: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                whole = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
                (part,) = whole.get_payload()
                return part.get_payload(decode=True)
            return json.loads(body) if body else {}

        def _say(self, status: int, found: Any) -> None:
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    fake.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
