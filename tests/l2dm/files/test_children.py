"""No step outlives the learner that started it."""

import os
import subprocess
import sys
import time

from l2dm.files import children


def test_a_step_ends_when_its_learner_is_dead() -> None:
    code = (
        "import time; from components.services import watch; "
        "watch.follow_learner(0.05); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", "pass"]) as learner:
        learner.wait()
    began = time.monotonic()
    dead = {**os.environ, children.VARIABLE: str(learner.pid)}
    assert subprocess.run([sys.executable, "-c", code], env=dead).returncode == children.EXIT_CODE
    assert time.monotonic() - began < 20
