"""One learner per line; a dead one holds nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.services import locks, watch
from l2dm.errors import LineBusy

HOLD = """
import sys, time
from pathlib import Path
from components.services import locks
with locks.held(Path(sys.argv[1]), "pets"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_learner_is_told_who_holds_the_line(tmp_path: Path) -> None:
    path = tmp_path / "pets.lock"
    with locks.held(path, "pets"):
        assert f"process {os.getpid()}" in str(locks.holder(path))
        with (
            pytest.raises(LineBusy, match=f"line 'pets' to be free, .*process {os.getpid()} on"),
            locks.held(path, "pets"),
        ):
            pass
    assert locks.holder(path) is None
    with locks.held(path, "pets"):
        pass


def test_the_lock_of_a_killed_learner_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pets.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LineBusy, match=f"process {other.pid}"), locks.held(path, "pets"):
            pass
        other.kill()
        other.wait()
    with locks.held(path, "pets"):
        assert f"process {os.getpid()}" in str(locks.holder(path))


def test_a_lock_is_free_before_anybody_ever_held_it(tmp_path: Path) -> None:
    assert locks.holder(tmp_path / "pets.lock") is None


def test_a_step_ends_when_its_learner_is_dead() -> None:
    code = (
        "import time; from components.services import watch; "
        "watch.follow_learner(0.05); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", "pass"]) as learner:
        learner.wait()
    began = time.monotonic()
    dead = {**os.environ, watch.VARIABLE: str(learner.pid)}
    assert subprocess.run([sys.executable, "-c", code], env=dead).returncode == watch.EXIT_CODE
    assert time.monotonic() - began < 20
