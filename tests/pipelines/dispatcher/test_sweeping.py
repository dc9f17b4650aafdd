"""What is left behind when runs have ended, or are told to end: nothing that grows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.runtime.outcomes import _clear
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.store.home import Home
from pipelines.places.runs import KEPT, LocalRuns


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def test_the_output_of_runs_is_kept_for_a_month(home: Home) -> None:
    for name, age in (("old", KEPT + 60), ("young", KEPT - 60)):
        folder = home.folder / "dispatched" / name
        folder.mkdir(parents=True)
        (folder / "output.txt").write_text("words")
        os.utime(folder, (time.time() - age,) * 2)
    LocalRuns(home)
    assert [one.name for one in (home.folder / "dispatched").iterdir()] == ["young"]


def test_promote_clears_what_ended_and_leaves_what_is_learned(home: Home) -> None:
    records = Records(home.store, "pets")
    for name in ("rex", "mimi"):
        home.work("pets", name).mkdir(parents=True)
        records.append("submitted", concept=name, class_noun="dog")
    records.end(ConceptState("rex", "dog", "failed", reasons=("out of memory",)))
    _clear(home, records, "pets")
    assert not home.work("pets", "rex").exists()
    assert home.work("pets", "mimi").exists()


@pytest.mark.slow
def test_a_dispatcher_that_is_told_to_end_ends_well(home: Home, tmp_path: Path) -> None:
    Records(home.store, "pets").append("submitted", concept="rex", class_noun="dog")
    command = [str(Path(sys.executable).with_name("l2dm")), "dispatch", "--home", str(home.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dispatcher:
        assert dispatcher.stdout is not None
        assert dispatcher.stdout.readline() == "pets: idle\n"
        dispatcher.send_signal(signal.SIGTERM)
        assert dispatcher.wait(30) == 0
