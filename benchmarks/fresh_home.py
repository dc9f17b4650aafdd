"""Eight processes open a fresh state folder at once; some are killed, the disk fills up.

    python -m benchmarks.fresh_home [--rounds 100] [--seed 1] [--work .bench-fresh]

A round (tests/worlds/fresh_home.py): three submitters, two learners, two that ask the registry, one
that asks for the status. None, one, two or four are killed (SIGKILL), and in half of the rounds the
disk is full for a while; who and when follows from the seed. Then everybody who did not get through
does it again, in peace. Bar: every home is usable, every upload is promoted once, nothing failed.
The disk of a round is a mount of its own, seen by this program alone; without the right to mount
(root) it never fills up, and that is said. Exits 1 when the bar is missed.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks import ROOT  # noqa: F401 - finds the worlds of the tests
from tests.worlds import fresh_home
from tests.worlds.fresh_home import Outcome, Props


def main() -> None:
    """The rounds, one line each, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no round after that")
    parser.add_argument("--work", type=Path, default=Path(".bench-fresh"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # mlflow's
    work = options.work.resolve() / "rounds"  # deleted; what else lies there is somebody's
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    disk = fresh_home.may_mount()
    if disk:
        fresh_home.leave_mounts_behind()
    else:
        print("this user may mount nothing: the disk never fills up", flush=True)
    _import_all()
    props, sums, began = Props.made(work), Counter[str](), time.monotonic()
    for seed in range(options.seed, options.seed + options.rounds):
        if options.minutes and time.monotonic() - began > 60 * options.minutes:
            break
        outcome = _round(props, seed, disk=disk)
        sums += Counter(rounds=1, killed=outcome.killed, full=outcome.full)
        sums += Counter(refusals=len(outcome.told), wrong=bool(outcome.wrong))
        print(json.dumps({"seed": seed, **asdict(outcome)}), flush=True)
    shutil.rmtree(work, ignore_errors=True)
    print(json.dumps({**sums, "seconds": round(time.monotonic() - began)}))
    sys.exit(bool(sums["wrong"]))


def _import_all() -> None:
    """What every opener needs, before any is forked; no file of a home is opened."""
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import l2dm.uploads.folder  # noqa: F401


def _round(props: Props, seed: int, *, disk: bool) -> Outcome:
    """In a process of its own: what it opens is closed with it."""
    path = props.folder / f"outcome-{seed}.json"
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_play, args=(props, seed, path, disk))
    process.start()
    process.join()
    if not path.exists():
        return Outcome(wrong=[f"the round itself died: {process.exitcode}"])
    return Outcome(**json.loads(path.read_text()))


def _play(props: Props, seed: int, path: Path, disk: bool) -> None:
    said = os.open(props.folder / "said.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 2)
    outcome = fresh_home.play(props, seed, disk=disk)
    path.write_text(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
