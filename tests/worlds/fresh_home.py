"""Eight processes open a state folder that nobody opened before, and some of them die.

Submitters, two learners, whoever asks the registry, whoever asks for the status: forked from a
process that has everything imported, so that they meet while the first of them makes the database.
What happens to whom, and when, follows from a seed. Learners do what the six steps do to the
platform, and take no time for the rest.
"""

import ctypes
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking import database
from components.services.tracking.mlflow_registry import MlflowRegistry
from l2dm import doors
from l2dm.doors import Concept
from l2dm.errors import BadUpload, L2dmError, LineBusy, TrackingFailed
from l2dm.files import manifest
from l2dm.spec import Spec, override
from pipelines.commands.lines.status import status_of
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.places.run_here import Job
from tests.worlds.fast_runs import keep_contracts
from tests.worlds.uploads import pictures

ECHO = Path(__file__).with_name("echo_model.py")
LINES = ("pets", "cups")
SECONDS = 6.0  # during which somebody may be killed, and the disk may fill up
PATIENCE = 120.0  # seconds after which a process counts as hanging
DISK = 64 * 2**20  # bytes of the disk of a round
SPARE = (0, 0, 20_000, 500_000)  # bytes that a full disk has left
OPENERS = (
    *(("learn", ""), ("learn", ""), ("registry", ""), ("registry", ""), ("status", "")),
    *(("submit", "pets-rex"), ("submit", "pets-mimi"), ("submit", "cups-ada")),
)
OURS = (L2dmError, OSError)


@dataclass(frozen=True)
class Props:
    """What a round is given: pictures to submit, a release to register, where files may lie."""

    pictures: Path
    release: Path
    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Props":
        """In a folder that is there."""
        verdict = doors.Verdict(open=True, reasons=())
        whole = doors.Release("pets", "t0001", None, 0, "", "", "", verdict)
        manifest.write(folder / "release", whole, lambda _: None)
        return cls(pictures(folder / "pictures"), folder / "release", folder)


@dataclass
class Outcome:
    """One round: how many were killed, whether the disk was full, and what went wrong."""

    killed: int = 0
    full: bool = False
    told: list[str] = field(default_factory=list)  # refusals, in words: they may be tried again
    wrong: list[str] = field(default_factory=list)


def play(props: Props, seed: int, *, disk: bool) -> Outcome:
    """One round on a fresh home, then a peaceful pass, then a look at everything.

    disk: whether a disk of its own can be mounted, which may fill up.
    """
    dice, outcome = random.Random(seed), Outcome()
    home = props.folder / f"home-{seed}"
    home.mkdir()
    with _disk(home) if disk else _plain(home):
        _open_at_once(props, home, dice, outcome, disk=disk)
        _in_peace(props, home, outcome)
        outcome.wrong += [] if outcome.wrong else list(_found_wrong(home))
    return outcome


def may_mount() -> bool:
    """Whether this process may mount a disk for a round."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"]).returncode == 0


def leave_mounts_behind() -> None:
    """From here on, what this process mounts is seen by it and its children alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    size = f"size={DISK}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def _plain(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_at_once(
    props: Props, home: Path, dice: random.Random, outcome: Outcome, *, disk: bool
) -> None:
    """Start all eight, and let happen what the dice say."""
    fork = multiprocessing.get_context("fork")
    openers = dice.sample(OPENERS, len(OPENERS))
    logs = [props.folder / f"{home.name}-{number}.json" for number in range(len(openers))]
    processes: list[BaseProcess] = []
    for (what, of), path in zip(openers, logs, strict=True):
        process = fork.Process(target=_opener, args=(props, home, what, of, path, dice.random()))
        process.start()
        processes.append(process)
    moments: list[tuple[float, Callable[[], None]]] = []
    doomed = dice.sample(range(len(processes)), dice.choice((0, 1, 2, 4)))
    for number in doomed:
        moments.append((dice.uniform(0, SECONDS), lambda one=processes[number]: _kill(one)))
    if disk and dice.random() < 0.5:
        outcome.full, spare = True, dice.choice(SPARE)
        since = dice.uniform(0, SECONDS)
        moments.append((since, lambda: _fill(home, spare)))
        moments.append((since + dice.uniform(0.5, 4.0), lambda: _free(home)))
    began = time.monotonic()
    for at, act in sorted(moments, key=lambda one: one[0]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        act()
    _free(home)
    _await(processes, openers, logs, outcome)


def _await(
    processes: list[BaseProcess],
    openers: list[tuple[str, str]],
    logs: list[Path],
    outcome: Outcome,
) -> None:
    """Until all have ended; what they say of it."""
    until = time.monotonic() + PATIENCE
    for process, (what, of), path in zip(processes, openers, logs, strict=True):
        process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
            outcome.wrong.append(f"{what} {of} hung")
            continue
        if process.exitcode == -signal.SIGKILL:
            outcome.killed += 1
            continue
        told = json.loads(path.read_text())
        path.unlink()
        if told["ours"] and outcome.full:
            outcome.told.append(f"{what} {of}: {told['ours']}")
        elif told["ours"] or told["foreign"]:
            outcome.wrong.append(f"{what} {of}: {told['ours'] or told['foreign']}")


def _opener(props: Props, home: Path, what: str, of: str, log: Path, wait: float) -> None:
    """The life of one process. log: where it says how it ended, on another disk."""
    os.setsid()
    told = {"ours": "", "foreign": ""}
    time.sleep(wait)
    try:
        _act(props, home, what, of)
    except OURS as error:
        told["ours"] = f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - it is what the round is about
        told["foreign"] = f"{type(error).__name__}: {error}"
    log.write_text(json.dumps(told))
    os._exit(0)


def _act(props: Props, home: Path, what: str, of: str) -> None:
    place = Home.at(home)
    if what == "submit":
        _submit(props, place, of)
    elif what == "learn":
        _learn(props, place)
    elif what == "registry":
        MlflowRegistry(place, "pocket", ECHO).every_alias()
    else:
        broken = [one for one in status_of(place, None, refresh=False) if "unreadable" in one]
        if broken:
            raise TrackingFailed(f"status: {broken}")


def _submit(props: Props, home: Home, of: str) -> None:
    line, _, name = of.partition("-")
    spec = override(Spec(), ["intake.min_side=8"]).intake
    submit_pictures(home, props.pictures, line, Concept(name, "dog"), spec)


def _learn(props: Props, home: Home) -> None:
    """Learn what waits, for a while: others may still submit, and another one learns, too."""
    registry, until = MlflowRegistry(home, "pocket", ECHO), time.monotonic() + SECONDS
    while time.monotonic() < until:
        for line in LINES:
            with suppress(LineBusy):
                _learn_line(props, home, registry, line)
        time.sleep(0.2)


def _learn_line(props: Props, home: Home, registry: MlflowRegistry, line: str) -> None:
    with Leases(home.store).held(line) as keeper:
        fence = keeper.lease(line).fence
        for name in _waiting(home, line):
            job = Job(line, name, "pocket", "{}", home, fence)
            keep_contracts(job, registry, props.release, True, lambda: None)


def _waiting(home: Home, line: str) -> tuple[str, ...]:
    return Uploads(home.store, line).waiting(Records(home.store, line).concepts())


def _in_peace(props: Props, home: Path, outcome: Outcome) -> None:
    """Whoever was killed or refused does it again; nobody dies now."""
    place = Home.at(home)
    try:
        for what, of in OPENERS:
            if what == "submit":
                with suppress(BadUpload):  # it is there
                    _submit(props, place, of)
        registry = MlflowRegistry(place, "pocket", ECHO)
        for line in LINES:
            _learn_line(props, place, registry, line)
    except Exception as error:  # noqa: BLE001 - a home that cannot be used
        outcome.wrong.append(f"in peace: {type(error).__name__}: {error}")


def _found_wrong(home: Path) -> Iterator[str]:
    """What of a home is not as it should be after all of that."""
    place = Home.at(home)
    registry = MlflowRegistry(place, "pocket", ECHO)
    if database._state(place.database) != "whole":
        yield "the database is not whole"
    left = [path.name for path in home.glob(f"{database.DRAFT}*")]
    if left:
        yield f"drafts of the database are left: {left}"
    for line in LINES:
        yield from _line_wrong(place, registry, line)
    broken = [one for one in status_of(place, None, refresh=True) if "unreadable" in one]
    if broken:
        yield f"status: {broken}"


def _line_wrong(home: Home, registry: MlflowRegistry, line: str) -> Iterator[str]:
    """Every concept is promoted, once, as one version, and the alias names the last."""
    names = sorted(of.partition("-")[2] for _, of in OPENERS if of.startswith(f"{line}-"))
    records = Records(home.store, line)
    states = {one.name: one.state for one in records.concepts()}
    if states != dict.fromkeys(names, "promoted"):
        yield f"{line}: {states}"
    events = records.events()
    ends = sorted(one.facts["concept"] for one in events if one.kind == "ended")
    if ends != names:
        yield f"{line}: ended {ends}"
    versions = [one.number for one in registry.versions(line)]
    promoted = sorted({one.facts["target"] for one in events if one.kind == "promotion"})
    if versions != promoted or len(promoted) != len(names):
        yield f"{line}: versions {versions}, promoted {promoted}"
    if registry.aliases(line).get("champion") != records.state().standing.champion:
        yield f"{line}: aliases {registry.aliases(line)}"


def _kill(process: BaseProcess) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if process.pid:
            os.killpg(process.pid, signal.SIGKILL)


def _fill(home: Path, spare: int) -> None:
    """Leave so many bytes of the disk."""
    free = shutil.disk_usage(home).free
    with open(home / f".filler-{uuid.uuid4().hex}", "wb") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(1, free - spare))


def _free(home: Path) -> None:
    for path in home.glob(".filler-*"):
        with suppress(OSError):
            path.unlink()
