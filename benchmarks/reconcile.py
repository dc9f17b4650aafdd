"""What a look costs: 1,000 idle lines with 100 concepts each, on a folder and on an S3 server.

    python -m benchmarks.reconcile [--lines 1000 --concepts 100] [--on folder radosgw]

Every concept has its upload (concept.json and four pictures) and the five events of a life that
ended as promoted: 500 objects of inbox and 500 records per line. Measured are the first pass of a
new process that finds no snapshot, the first pass of one that does, and later ones. radosgw is
started natively (tests/integration/servers.py); requests are counted where they leave the process.
--lean writes what these requests touch and no more, because an hour of writing a million objects
measures nothing: concept.json, the last event, the snapshot of those before it. --listen measures
with the metrics of `l2dm dispatch --listen`, as infra/cluster runs it, and one pass more, ten
minutes later by the metrics' clock.
Prints a table; exits 1 when a bar is missed (10 s a pass, 3 requests a line; the pass without
snapshots, which happens once, has no bar).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.services.line import snapshots
from components.services.line.ledger import Event, Ledger
from components.services.store.home import Home
from components.services.store.s3 import S3Objects
from components.services.tracking.registry import FolderRegistry
from l2dm import __version__
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
from pipelines.dispatcher.metrics import RECOUNT, Measured
from pipelines.places.runs import LocalRuns
from tests.integration import servers

BUCKET = "reconcile"
SECONDS, REQUESTS = 10.0, 3.0  # the bars
WRITERS = 8
PICTURE = b"picture"


@dataclass(frozen=True)
class Pass:
    """One look at all lines. idle: how many lines it found idle."""

    what: str
    seconds: float
    cpu: float
    requests: int
    idle: int


def main() -> None:
    """Write the lines, look at them, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--on", nargs="+", default=["folder", "radosgw"])
    parser.add_argument("--lean", action="store_true", help="in the bucket; see above")
    parser.add_argument("--folder", help="where the folder is made; default: the usual place")
    parser.add_argument("--listen", action="store_true", help="with metrics; see above")
    parser.add_argument("--look", help=argparse.SUPPRESS)  # a process of its own: where
    options = parser.parse_args()
    if options.look:
        for one in look(options.look, options.listen):
            print(json.dumps(asdict(one)), flush=True)
        return
    missed = False
    for kind in options.on:
        if kind == "folder":
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                missed |= measure(f"{folder}/home", options)
        else:
            with servers.running() as (_, where):
                os.environ |= where.aws
                servers.make_bucket(where, BUCKET)
                missed |= measure(f"s3://{BUCKET}/home", options)
    sys.exit(missed)


def measure(place: str, options: argparse.Namespace) -> bool:
    """Whether a bar is missed."""
    began = time.monotonic()
    lean = options.lean and "://" in place
    write(place, options.lines, options.concepts, lean)
    print(f"{place}: written in {time.monotonic() - began:.0f} s", flush=True)
    missed = False
    for start in ("new process",) if lean else ("new process, no snapshot", "new process"):
        command = [sys.executable, "-m", "benchmarks.reconcile", "--look", place]
        command += ["--listen"] * options.listen
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for number, line in enumerate(process.stdout or ()):
                one = Pass(**json.loads(line))
                what = start if number == 0 else one.what
                asked = one.requests / options.lines
                missed |= one.idle != options.lines
                if what != "new process, no snapshot":
                    # lines are listed for all of them together: a request or two
                    missed |= one.seconds > SECONDS or round(asked, 1) > REQUESTS
                print(
                    f"| {place.split('/')[0] or 'folder'} | {what} | {one.seconds:.1f} s | "
                    f"{one.cpu:.1f} s | {asked:.2f} | {one.idle} |",
                    flush=True,
                )
    return missed


def look(place: str, listen: bool) -> Iterator[Pass]:
    """Three passes of one dispatcher, and with its metrics one that counts all lines anew."""
    home = Home.at(place)
    scratch = Path(tempfile.mkdtemp())
    counted = Counter[str]()
    if isinstance(home.store, S3Objects):
        events = home.store._client.meta.events
        events.register("before-send.s3", lambda **_: counted.update(n=1))
    policy = DispatchPolicy(aliases=float("inf"))  # the registry is not what is measured here
    registry = FolderRegistry(scratch / "registry")
    dispatcher = Dispatcher(
        home, LocalRuns(home), lambda: registry, RunSettings("pocket", "{}"), policy
    )
    later = 0.0
    measured = Measured(dispatcher, clock=lambda: time.time() + later)
    for number in range(3 + listen):
        later = RECOUNT if number == 3 else 0.0
        before, began, cpu = counted["n"], time.monotonic(), time.process_time()
        moved = Counter((measured if listen else dispatcher).look().values())
        yield Pass(
            f"pass {number + 1}",
            time.monotonic() - began,
            time.process_time() - cpu,
            counted["n"] - before,
            moved["idle"],
        )
    shutil.rmtree(scratch, ignore_errors=True)


def write(place: str, lines: int, concepts: int, lean: bool) -> None:
    """The lines, by several processes."""
    share = [str(number) for number in range(lines)]
    script = "from benchmarks.reconcile import write_lines; import sys; write_lines(*sys.argv[1:])"
    halves = (",".join(share[::2]), ",".join(share[1::2]))
    more = (place, str(concepts), "lean" * lean)
    commands = [[sys.executable, "-c", script, *more, half] for half in halves]
    processes = [subprocess.Popen(command) for command in commands]
    if any(process.wait() for process in processes):
        raise SystemExit("the lines could not be written")


def write_lines(place: str, concepts: str, lean: str, numbers: str) -> None:
    """Some of the lines: files as they are, objects by bare requests."""
    home = Home.at(place)
    entries = (
        entry
        for number in numbers.split(",")
        for entry in (thinned if lean else contents)(f"line-{int(number):04d}", int(concepts))
    )
    if isinstance(home.store, S3Objects):
        client: Any = home.store._client
        prefix = home.store.prefix

        def put(entry: tuple[str, bytes]) -> None:
            client.put_object(Bucket=BUCKET, Key=prefix + entry[0], Body=entry[1])

        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(put, entries):
                pass
        return
    known: Path | None = None
    for key, data in entries:
        path = home.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if data == PICTURE and known:
            os.link(known, path)  # a million files: those that nobody opens are one
            continue
        path.write_bytes(data)
        known = path if data == PICTURE else known


def contents(line: str, concepts: int) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes of a line whose uploads were all promoted."""
    number = 0
    for index in range(concepts):
        name, task = f"concept-{index:03d}", f"t{index + 1:04d}"
        text = json.dumps({"line": line, "concept": {"name": name, "class_noun": "dog"}}).encode()
        for picture in range(4):
            yield f"inbox/{line}/{name}/{picture:02d}-0123456789abcdef.jpg", PICTURE
        yield f"inbox/{line}/{name}/concept.json", text
        upload = hashlib.sha256(text).hexdigest()
        mark = f'"{hashlib.md5(text).hexdigest()}"'  # as S3 lists it
        for facts in life(name, task, index, {"upload": upload, "mark": mark}):
            number += 1
            stamped = {"at": "2026-01-01T00:00:00+0000", "by": "l2dm", "id": f"{number}", **facts}
            yield f"records/{line}/{number:06d}.json", json.dumps(stamped, indent=1).encode()


def thinned(line: str, concepts: int) -> Iterator[tuple[str, bytes]]:
    """The same as far as an idle line's requests see it."""
    ledger, key, data = Ledger(), "", b""
    for key, data in contents(line, concepts):
        if key.startswith("inbox/") and key.endswith("/concept.json"):
            yield key, data
        elif key.startswith("records/"):
            facts = json.loads(data)
            mark = f'"{hashlib.md5(data).hexdigest()}"'  # as S3 makes an ETag
            ledger.add(Event(ledger.last + 1, facts["kind"], facts), mark)
    yield key, data
    snapshot = {"format": snapshots.FORMAT, "code": __version__, "ledger": ledger.to_data()}
    yield f"snapshots/{line}.json", json.dumps(snapshot).encode()


def life(name: str, task: str, champion: int, upload: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The events of an upload that became the next champion."""
    noun = {"concept": name, "class_noun": "dog"}
    run = {"run": f"run-{task}", "attempt": 1, "fence": champion + 1, **upload}
    costs = {step: {"seconds": 1.0, "peak_mb": 900.0} for step in ("train", "evaluate", "promote")}
    yield {"kind": "submitted", **noun}
    yield {"kind": "started", "concept": name, **run}
    yield {"kind": "begun", **noun, "task": task, "parent_version": champion, **upload}
    yield {"kind": "promotion", "task": task, "source": champion, "target": champion + 1}
    end = {"task": task, "state": "promoted", "version": champion + 1, **upload}
    scores = {"identity_accuracy": 0.9, "image_alignment": 0.8, "forgetting": 0.01}
    yield {"kind": "ended", **noun, **end, "reasons": ["fine"], "scores": scores, "costs": costs}


if __name__ == "__main__":
    main()
