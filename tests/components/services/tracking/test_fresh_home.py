"""A state folder that eight processes open at once, some of which die, is usable afterwards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
def test_a_fresh_home_survives_kills_and_a_full_disk(tmp_path: Path) -> None:
    """Two rounds of the bench: in one three are killed, in the other the disk fills up, too."""
    bench = [sys.executable, "-m", "benchmarks.fresh_home", "--rounds", "2", "--seed", "1"]
    command = [*bench, "--work", str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    *rounds, sums = [json.loads(one) for one in done.stdout.splitlines() if one.startswith("{")]
    assert [one["wrong"] for one in rounds] == [[], []]
    assert sums["rounds"] == 2 and sums["killed"] >= 2
