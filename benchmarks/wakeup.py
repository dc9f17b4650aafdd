"""From the upload to the run that was started: seconds, when an event of the bucket wakes us.

    python -m benchmarks.wakeup [--lines 30] [--through sqs webhook]

sqs: bucket and queue of a moto server, whose notifications S3 sends. webhook: radosgw, which posts
its notifications to the dispatcher, and MLflow on PostgreSQL. A dispatcher in a process of its own
scans every two minutes only, so that what is fast is the event. Every line gets two uploads: the
first one of a line that nobody knew, the second one when it has a champion (whose aliases are
compared before the run starts). Measured from before concept.json is sent until the run's job is
written, right before its process starts. Exits 1 when a 95th percentile is above 2 s.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.chaos_processes import Role
from components.services.line.records import Records
from components.services.store.home import Home
from tests.integration import servers
from tests.worlds.object_stores import MOTO_KEYS

BUCKET = "wakeups"
BAR, SCAN, PATIENCE = 2.0, 120.0, 60.0  # seconds
DISPATCHER = "from benchmarks.chaos_processes import main; main()"


def main() -> None:
    """Each way, then a line of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--through", nargs="+", default=["sqs", "webhook"])
    options = parser.parse_args()
    missed = False
    for way in options.through:
        with tempfile.TemporaryDirectory() as scratch:
            stage = sqs if way == "sqs" else webhook
            with stage(Path(scratch)) as role:
                seconds = sorted(measured(role, options.lines))
        at = statistics.quantiles(seconds, n=20)[-1]
        missed |= at > BAR
        print(
            f"| {way} | {len(seconds)} | {statistics.median(seconds):.2f} s | {at:.2f} s | "
            f"{seconds[-1]:.2f} s |",
            flush=True,
        )
    sys.exit(missed)


@contextmanager
def sqs(scratch: Path) -> Iterator[Role]:
    """Bucket and queue in moto's server; the registry is a folder."""
    port = servers.free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(scratch / "moto.log", "wb") as log:
        moto = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        os.environ |= MOTO_KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        until(lambda: servers.answers(f"http://127.0.0.1:{port}/moto-api/"))
        queues = client("sqs")
        url = queues.create_queue(QueueName="wakeups")["QueueUrl"]
        found = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        notify = {"QueueArn": found["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        store = client("s3")
        store.create_bucket(Bucket=BUCKET)
        store.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [notify]}
        )
        role = role_of(scratch, 0)
        yield Role(**asdict(role) | {"queue": url, "registry": str(scratch / "registry")})
    finally:
        moto.kill()
        moto.wait()


@contextmanager
def webhook(scratch: Path) -> Iterator[Role]:
    """Radosgw posts to the dispatcher; the registry is MLflow's server."""
    with servers.running() as (_, where):
        os.environ |= where.aws | {"MLFLOW_TRACKING_URI": where.mlflow}
        role = role_of(scratch, servers.free_port())
        to = {"push-endpoint": f"http://127.0.0.1:{role.port}/"}
        topic = client("sns").create_topic(Name="wakeups", Attributes=to)["TopicArn"]
        notify = {"Id": "wake", "TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
        store = servers.client(where)
        store.create_bucket(Bucket=BUCKET)
        store.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"TopicConfigurations": [notify]}
        )
        yield role


def role_of(scratch: Path, port: int) -> Role:
    """A dispatcher that has a place for every line and scans seldom."""
    release = scratch / "release"
    release.mkdir()
    (release / "manifest.json").write_text("{}")
    machine = scratch / "machine"
    return Role(
        f"s3://{BUCKET}/state", str(machine), str(release), BUCKET, "state", port, 1000, every=SCAN
    )


def client(what: str) -> Any:
    """Of the settings of now."""
    import boto3

    return boto3.session.Session().client(what)


def measured(role: Role, lines: int) -> list[float]:
    """Seconds of every upload."""
    home, machine = Home.at(role.place), Path(role.folder)
    machine.mkdir()
    (machine / "role.json").write_text(json.dumps(asdict(role)))
    command = [sys.executable, "-c", DISPATCHER, str(machine / "role.json")]
    with open(machine / "log", "wb") as log:
        dispatcher = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
    try:
        time.sleep(5.0)  # it has seen that there is nothing
        upload(home, machine, "warm", "good-one")  # what forks the runs has loaded mlflow
        until(lambda: bool(Records(home.store, "warm").state().tasks))
        found = []
        for concept in ("good-one", "good-two"):
            until(lambda: all(is_idle(home, f"line-{n:02d}") for n in range(lines)), 300.0)
            for number in range(lines):
                found.append(upload(home, machine, f"line-{number:02d}", concept))
                time.sleep(0.3)
        return found
    finally:
        os.killpg(dispatcher.pid, signal.SIGKILL)
        dispatcher.wait()


def upload(home: Home, machine: Path, line: str, concept: str) -> float:
    """Seconds from the commit of one upload to its run."""
    data = f"{line} {concept}".encode()
    facts = {
        "line": line,
        "concept": {"name": concept, "class_noun": "dog"},
        "pictures": [{"name": "00.png", "sha256": hashlib.sha256(data).hexdigest()}],
    }
    home.store.write(f"inbox/{line}/{concept}/00.png", data)
    began = time.time()
    home.store.create(f"inbox/{line}/{concept}/concept.json", json.dumps(facts).encode())
    jobs = machine / "dispatched"
    until(lambda: any(jobs.glob(f"{line}-*-{concept}-*/job.json")))
    (job,) = jobs.glob(f"{line}-*-{concept}-*/job.json")
    return job.stat().st_mtime - began


def is_idle(home: Home, line: str) -> bool:
    """Whether nothing learns on it."""
    ledger = Records(home.store, line).state()
    return ledger.active is None


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait; raises SystemExit when it takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"expected it within {seconds:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
