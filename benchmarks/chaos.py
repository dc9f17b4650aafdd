"""Everything dies at random: dispatchers, runs, MLflow's server, the S3 server; events are lost.

    make chaos SEED=7          # python -m benchmarks.chaos --seed 7 [--uploads 200 --lines 20]

Starts radosgw, PostgreSQL and MLflow (tests/integration/servers.py), lets several dispatchers work
on one bucket, commits uploads, and every few seconds kills (SIGKILL) or pauses somebody. Wake-ups
are dropped, doubled and reordered, and some pictures are put over others that wait or are learned.
What happens to whom follows from the seed; at which moment of their work it meets them does not.
When all uploads are in and the time of the kills is over, the dispatchers get until the deadline to
finish in peace. Then everything is counted; exits 1 when a count is wrong, with the whole history
of the lines concerned. --lasting: runs go on without the dispatcher that started them, as pipeline
runs of a cluster do.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.chaos_check import Counts, count, story
from benchmarks.chaos_processes import BLURRED, ECHO, Role
from components.services.line.ledger import ENDINGS
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from l2dm.errors import L2dmError
from tests.integration import servers

KINDS = {  # what happens every few seconds, and how often of a hundred times
    "kill run": 30,
    "kill dispatcher": 12,
    "replace dispatcher": 6,  # told to end, as in an upgrade
    "pause run": 24,
    "pause dispatcher": 14,
    "kill mlflow": 5,
    "kill radosgw": 9,
}
SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "replace": signal.SIGTERM}
LONGEST_PAUSE = 15.0  # seconds, nearly two leases
BUCKET = "chaos"
DISPATCHER = "from benchmarks.chaos_processes import main; main()"


@dataclass
class Scene:
    """The servers, the dispatchers, and who must be woken or started again."""

    running: servers.Servers
    where: servers.Where
    folder: Path
    prefix: str
    parallel: int
    ports: tuple[int, ...]
    lasting: bool = False
    replaced: set[int] = field(default_factory=set)  # ports of dispatchers that were told to end
    dispatchers: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def home(self) -> Home:
        """The state that everybody shares."""
        return Home.at(f"s3://{BUCKET}/{self.prefix}")

    def start_dispatcher(self, port: int) -> None:
        """A new process, on a machine of its own that knows nothing of the one before."""
        machine = self.folder / f"machine-{port}-{uuid.uuid4().hex[:6]}"
        machine.mkdir(parents=True)
        role = Role(
            self.home.place,
            str(machine),
            str(self.folder / "release"),
            BUCKET,
            self.prefix,
            port,
            self.parallel,
            skew=300.0 if port == self.ports[0] else 0.0,  # one clock is five minutes off
            cluster=str(self.folder / "machine-cluster" / "dispatched") if self.lasting else "",
        )
        (machine / "role.json").write_text(json.dumps(asdict(role)))
        command = [sys.executable, "-c", DISPATCHER, str(machine / "role.json")]
        with open(self.folder / f"dispatcher-{port}.log", "ab") as log:
            self.dispatchers[port] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def runs(self) -> list[int]:
        """Process numbers of the runs that have not ended."""
        found = []
        for path in sorted(self.folder.glob("machine-*/dispatched/*/pid")):
            ended, number = path.with_name("end.json").exists(), path.read_text()
            if not ended and number and Path(f"/proc/{number}").exists():
                found.append(int(number))
        return found


def main() -> None:
    """Set up, let it happen, wait, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument("--dispatchers", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=3, help="runs at once of a dispatcher")
    parser.add_argument("--every", type=float, default=4.0, help="longest time between two blows")
    parser.add_argument("--minutes", type=float, default=40.0, help="until the deadline")
    parser.add_argument("--lasting", action="store_true", help="runs outlive their dispatcher")
    parser.add_argument("--keep", action="store_true", help="leave the logs")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="l2dm-chaos-"))
    try:
        with servers.running() as (running, where):
            sys.exit(bool(play(options, running, where, folder)))
    finally:
        if options.keep:
            print(f"logs: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def play(
    options: argparse.Namespace, running: servers.Servers, where: servers.Where, folder: Path
) -> int:
    """The number of things that are wrong at the end."""
    os.environ |= where.aws | {"MLFLOW_TRACKING_URI": where.mlflow}
    os.environ["L2DM_SCRATCH"] = str(folder / "mine")
    servers.make_bucket(where, BUCKET)
    (folder / "release").mkdir()
    (folder / "release" / "manifest.json").write_text("{}")
    ports = tuple(servers.free_port() for _ in range(options.dispatchers))
    scene = Scene(running, where, folder, f"seed-{options.seed}", options.parallel, ports)
    scene.lasting = options.lasting
    for port in ports:
        scene.start_dispatcher(port)
    began, deadline = time.monotonic(), time.monotonic() + 60 * options.minutes
    plan = uploads_of(options)
    threads = [
        threading.Thread(target=commit_uploads, args=(scene, plan, options.seed)),
        threading.Thread(target=strike, args=(scene, options), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        left = wait(scene, plan, threads[0], began, deadline)
        print(f"after {time.monotonic() - began:.0f} s: {left} uploads without an end", flush=True)
        return report(scene, plan)
    finally:
        scene.over.set()
        for process in scene.dispatchers.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def uploads_of(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Line and concept of every upload, in the order in which they come."""
    dice = random.Random(f"uploads {options.seed}")
    plan = []
    for number in range(options.uploads):
        kind = dice.choices(("good", "held", "bad", "mend"), (75, 14, 5, 6))[0]
        plan.append((f"line-{number % options.lines:02d}", f"{kind}-{number:03d}"))
    dice.shuffle(plan)
    return plan


def commit_uploads(scene: Scene, plan: list[tuple[str, str]], seed: int) -> None:
    """Somebody's uploads, each until the store took it, with events that are lost or doubled."""
    dice = random.Random(f"events {seed}")
    for line, concept in plan:
        upload = scene.folder / "in" / concept
        upload.mkdir(parents=True)
        (upload / "0.png").write_bytes(data := f"{line} {concept}".encode())
        noun = BLURRED if concept.startswith("mend") else "dog"
        facts: dict[str, Any] = {
            "line": line,
            "concept": {"name": concept, "class_noun": noun},
            "pictures": [{"name": "0.png", "sha256": hashlib.sha256(data).hexdigest()}],
        }
        (upload / "concept.json").write_text(json.dumps(facts))
        until_done(lambda: Uploads(scene.home.store, line).commit(upload))  # noqa: B023
        if noun == BLURRED:  # whatever has become of the first one by then
            facts["concept"]["class_noun"] = "dog"
            given = (scene, f"inbox/{line}/{concept}/concept.json", json.dumps(facts).encode())
            threading.Timer(dice.uniform(0.0, 15.0), put_over, given).start()
        for _ in range(dice.choice((0, 1, 1, 2))):  # dropped or doubled
            delay = dice.choice((0.0, 0.0, 3.0, 10.0))  # and reordered
            body = {"EventName": "s3:ObjectCreated:Put"}
            body["Key"] = f"{BUCKET}/{scene.prefix}/inbox/{line}/{concept}/concept.json"
            wake = threading.Timer(delay, post, (dice.choice(scene.ports), json.dumps(body)))
            wake.daemon = True
            wake.start()
        time.sleep(dice.expovariate(1.2))


def put_over(scene: Scene, key: str, data: bytes) -> None:
    """Somebody puts better pictures over a name, without asking and without an event."""
    until_done(lambda: scene.home.store.write(key, data))


def until_done(act: Callable[[], object]) -> None:
    """An uploader's patience."""
    while True:
        try:
            act()
            return
        except L2dmError:
            time.sleep(1.0)


def post(port: int, body: str) -> None:
    """An event on its way to a dispatcher that may be dead."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/", body)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return


def strike(scene: Scene, options: argparse.Namespace) -> None:
    """Every few seconds somebody is killed or paused, until the scene is over."""
    dice = random.Random(f"blows {options.seed}")
    while not scene.over.wait(dice.uniform(1.0, options.every)):
        kind = dice.choices(tuple(KINDS), tuple(KINDS.values()))[0]
        port, which = dice.choice(scene.ports), dice.random()
        pause, down = dice.uniform(1.0, LONGEST_PAUSE), dice.uniform(0.0, 3.0)
        if hit(scene, kind, port, which, pause if "pause" in kind else down):
            scene.happened[kind] += 1


def hit(scene: Scene, kind: str, port: int, which: float, seconds: float) -> bool:
    """Whether there was somebody to hit. seconds: how long it is paused, or stays down."""
    what, whom = kind.split()
    if whom in ("mlflow", "radosgw"):
        scene.running.kill(whom)
        time.sleep(seconds)
        scene.running.start(whom)
        return True
    if whom == "dispatcher":
        process = scene.dispatchers[port]
        number = process.pid
    else:
        runs = scene.runs()
        if not runs:
            return False
        number = runs[int(which * len(runs))]
    if what == "replace":
        scene.replaced.add(port)
    try:
        os.kill(number, SIGNALS[what])
    except ProcessLookupError:
        return False
    if what == "pause":
        waker = threading.Timer(seconds, resume, (number,))
        waker.daemon = True
        waker.start()
    elif whom == "dispatcher":
        end(process)
        time.sleep(seconds)
        scene.start_dispatcher(port)
        scene.replaced.discard(port)
    return True


def end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a dispatcher that was killed or told to end; as long as a pod's end may take."""
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resume(number: int) -> None:
    """It wakes up and does not know that it slept."""
    try:
        os.kill(number, signal.SIGCONT)
    except ProcessLookupError:
        return


def wait(
    scene: Scene,
    plan: list[tuple[str, str]],
    committing: threading.Thread,
    began: float,
    deadline: float,
) -> int:
    """Until every upload has an end, or the deadline; returns how many have none.

    Peace comes when half of the time is over, or nine of ten uploads have ended.
    """
    died, left = 0, len(plan)
    while left and time.monotonic() < deadline:
        time.sleep(10.0)
        for port, process in tuple(scene.dispatchers.items()):
            ended_itself = process.poll() is not None and process.returncode != -signal.SIGKILL
            if ended_itself and port not in scene.replaced:
                died += 1
                print(f"A DISPATCHER ENDED BY ITSELF: exit {process.returncode}", flush=True)
                scene.start_dispatcher(port)
        try:
            left = len(plan) - ended(scene)
        except (L2dmError, OSError):  # the store is down just now
            continue
        now = time.monotonic()
        blows = ", ".join(f"{kind} {n}" for kind, n in sorted(scene.happened.items()))
        print(f"{now - began:5.0f} s: {left} of {len(plan)} left; {blows}", flush=True)
        late = now - began > (deadline - began) / 2
        if not committing.is_alive() and (late or left <= len(plan) / 10):
            scene.over.set()
    scene.over.set()
    scene.happened["dispatcher ended by itself"] += died
    return left


def ended(scene: Scene) -> int:
    """Uploads with a terminal state, and no better pictures to come."""
    store = scene.home.store
    return sum(
        state.state in ENDINGS and (state.state, state.name[:4]) != ("refused", "mend")
        for line in store.folders("records/")
        for state in Records(store, line).concepts()
    )


def report(scene: Scene, plan: list[tuple[str, str]]) -> int:
    """Print the counts; the history of every line where one is wrong."""
    time.sleep(LONGEST_PAUSE)  # whoever is paused wakes up and may do harm yet
    home = scene.home
    registry = MlflowRegistry(home, "pocket", ECHO)
    total, died = Counts(), scene.happened["dispatcher ended by itself"]
    for line in sorted({line for line, _ in plan}):
        found = count(home, registry, line, [name for at, name in plan if at == line])
        total += found
        if found.wrong:
            print(story(home, registry, line), flush=True)
    for name, number in asdict(total).items():
        print(f"{name:22s}{number}")
    for kind, number in sorted(scene.happened.items()):
        print(f"{kind:28s}{number}")
    for what, number in tries(home, plan).items():
        print(f"{what:28s}{number}")
    return total.wrong + died


def tries(home: Home, plan: list[tuple[str, str]]) -> Counter[str]:
    """How many runs were started, and of how many it was said that their dispatcher was gone."""
    events = [e for line in {at for at, _ in plan} for e in Records(home.store, line).events()]
    gone = [e for e in events if e.kind == "retried" and "not heard of" in e.facts["reasons"][0]]
    started = sum(event.kind == "started" for event in events)
    return Counter({"runs started": started, "runs ended by a dispatcher": len(gone)})


if __name__ == "__main__":
    main()
