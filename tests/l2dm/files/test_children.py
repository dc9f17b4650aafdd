"""A child finds us, outlives nobody, and is understood."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from l2dm.errors import BadSpec, BadUpload, DoesNotFit, L2dmError, StepFailed
from l2dm.files import children


@dataclass(frozen=True)
class Report:
    text: str
    done: int = 0


def run(code: str, **how: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **how)  # type: ignore[call-overload,no-any-return]


def test_a_step_ends_when_its_learner_is_dead() -> None:
    code = (
        "import time; from l2dm.files import children; "
        "children.follow_learner(0.05); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", "pass"]) as learner:
        learner.wait()
    began = time.monotonic()
    dead = {**os.environ, children.LEARNER: str(learner.pid)}
    assert run(code, env=dead).returncode == children.ORPHANED
    assert time.monotonic() - began < 20


def test_what_does_not_end_by_itself_is_ended_first() -> None:
    code = (
        "import time; from l2dm.files import children; "
        "children.follow_learner(0.05, lambda: print('removed', flush=True)); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", "pass"]) as learner:
        learner.wait()
    done = run(code, env={**os.environ, children.LEARNER: str(learner.pid)})
    assert (done.returncode, done.stdout) == (children.ORPHANED, "removed\n")


def test_a_child_ends_when_the_pipe_that_holds_it_is_closed() -> None:
    code = (
        "import time; from l2dm.files import children; "
        "children.follow_input(); print('begun', flush=True); time.sleep(30)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        child.stdin.close()
        assert child.wait(20) == children.ORPHANED


@pytest.mark.parametrize("way", ["environment", "inherited"])
def test_a_child_finds_us_in_a_folder_with_packages_of_our_names(way: str, tmp_path: Path) -> None:
    for name in ("l2dm", "components", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('of another project')\n")
    command = [sys.executable, "-m", "components.services.store.open"]  # nothing happens there
    assert subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode != 0
    command = children.command("components.services.store.open")
    if way == "environment":
        subprocess.run(command, cwd=tmp_path, env=children.environment(), check=True)
        return
    before = dict(os.environ)
    with children.inherited():
        subprocess.run(command, cwd=tmp_path, check=True)
        assert os.environ[children.LEARNER] == str(os.getpid())
    assert dict(os.environ) == before


def test_progress_is_read_among_other_output(capsys: pytest.CaptureFixture[str]) -> None:
    children.print_progress(Report("loss 0.1", 3))
    line = capsys.readouterr().out
    assert children.parse_progress(line, Report) == Report("loss 0.1", 3)
    assert children.parse_progress(f"[train] {line}", Report) == Report(
        "loss 0.1", 3
    )  # a runner's own prefix
    for other in ("", "loss", "l2dm|", "l2dm|{", 'l2dm|{"step": 1}', "l2dm|3", "l2dm|[]"):
        assert children.parse_progress(other, Report) is None


@pytest.mark.parametrize(
    "error", [BadUpload(["one", "two"]), BadSpec("three"), DoesNotFit("four"), StepFailed("five")]
)
def test_an_error_is_raised_again_as_its_own_type(error: L2dmError, tmp_path: Path) -> None:
    children.write(tmp_path / "error.json", children.error_to_json(error))
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"]
    again = children.error_from_json(children.read(tmp_path / "error.json"))
    assert (type(again), str(again)) == (type(error), str(error))


def test_an_error_that_is_none_of_ours_is_a_failed_step() -> None:
    told = json.loads(json.dumps(children.error_to_json(MemoryError())))
    assert told == {"kind": "MemoryError", "problems": ["MemoryError()"]}
    assert isinstance(children.error_from_json(told), StepFailed)
    assert isinstance(children.error_from_json({"kind": "Sequence", "problems": ["x"]}), StepFailed)
