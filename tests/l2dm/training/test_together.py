"""Two processes that learn one concept: what one process learns, and the end of one ends both."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases.diffusion import NoiseSchedule
from l2dm.errors import BadSpec, DoesNotFit, StepFailed
from l2dm.files.manifest import Door
from l2dm.methods.lesson import Batch, Lesson, Pool, draw_batch
from l2dm.training.fit import StepReport
from l2dm.training.launch import TrainingJob, together, write_job
from l2dm.training.learn import Sources
from l2dm.training.ranks import Rank
from tests.worlds.pretended import GPU, gpu

# Float sums in another order: the curve is stored with six digits, weights here are about 0.2.
CURVE, WEIGHTS = 2e-6, 5e-5
TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=8", "train.rank=2", "train.checkpoint_every=2", "evaluate.pictures=1"),
    *("train.batch=3", "evaluate.distractors=4"),  # 3 = 2 + 1
)
ONE_EACH = ("train.method=l2dm", "l2dm.replay_batch=1")  # 1 = 1 + 0


@dataclass(frozen=True)
class Ready:
    """Doors of the second task of a line, so that there is something to replay."""

    sources: Sources
    base: str

    def context(self, *settings: str) -> steps.Context:
        chosen = specs.override(specs.Spec(), ["train.method=l2dm", *settings]).train.method
        own = ONE_EACH if chosen == "l2dm" else ()
        spec = specs.override(specs.Spec(), [*TINY, *own, *settings])
        return steps.Context(self.base, "pets", "t0002", 1, spec)

    def train(self, out: Path, *settings: str) -> Door[doors.Adapter]:
        places = vars(self.sources).values()
        return steps.train(*places, out, self.context(*settings))


@pytest.fixture(scope="module")
def ready(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    from tests.worlds import tiny

    root = tmp_path_factory.mktemp("ready")
    sources = Sources(**tiny.second_task(root, str(tiny_base), [*TINY, *ONE_EACH]))
    return Ready(sources, str(tiny_base))


def first_of(ready: Ready) -> Ready:
    """The same pictures as the first concept of a line: gated adapters continue no other kind."""
    parent = ready.sources.task.parent / "empty"
    return Ready(Sources(**{**vars(ready.sources), "parent": parent}), ready.base)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["l2dm", "gated", "sequential"])
def test_two_processes_learn_what_one_learns_from_the_whole_batch(
    ready: Ready, tmp_path: Path, method: str
) -> None:
    which = first_of(ready) if method == "gated" else ready
    one = which.train(tmp_path / "one", f"train.method={method}")
    two = which.train(tmp_path / "two", f"train.method={method}", "train.processes=2")
    curves = [json.loads(door.path("curve.json").read_text())["terms"] for door in (one, two)]
    expected = {"new", "replay", "prior", "distill"} if method == "l2dm" else {"new"}
    assert set(curves[0]) == set(curves[1]) == expected
    for term in expected:
        assert len(curves[1][term]) == 8
        assert curves[1][term] == pytest.approx(curves[0][term], abs=CURVE), term
    for file in ("adapter.safetensors", "tokens.safetensors"):
        mine, theirs = load_file(one.path(file)), load_file(two.path(file))
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.allclose(mine[name], theirs[name], rtol=0, atol=WEIGHTS), name
    assert one.record == two.record
    assert "processes" not in one.spec["train"]
    assert two.spec["train"]["processes"] == 2


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_and_the_step_goes_on_from_its_checkpoint(
    ready: Ready, tmp_path: Path
) -> None:
    context = ready.context("train.processes=2", "train.steps=40")
    undisturbed, work = tmp_path / "calm", tmp_path / "work"
    together(ready.sources, undisturbed, context)
    seen: list[int] = []
    killed: list[int] = []

    def kill_the_second(report: StepReport) -> None:
        if report.step >= 5 and not killed:
            killed.append(rank_process(1))
            os.kill(killed[0], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(
        StepFailed, match=r"process 1 ended \(exit code -9, SIGKILL; .*start the step again"
    ):
        together(ready.sources, tmp_path / "out", context, work=work, on_step=kill_the_second)
    assert time.monotonic() - began < 60
    assert killed
    assert rank_processes() == {}
    assert not (tmp_path / "out").exists()
    together(
        ready.sources, tmp_path / "out", context, work=work,
        on_step=lambda report: seen.append(report.step),
    )  # fmt: skip
    assert seen[0] >= 5 and seen[-1] == 40
    assert contents(tmp_path / "out") == contents(undisturbed)


@pytest.mark.slow
def test_the_error_of_a_process_is_the_error_of_the_step(ready: Ready, tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match=r"the spec asks for lowrank of rank 4"):
        ready.train(tmp_path / "out", "train.rank=4", "train.processes=2")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_no_process_outlives_the_step(ready: Ready, tmp_path: Path) -> None:
    context = ready.context("train.processes=2", "train.steps=100000")
    job = TrainingJob(ready.sources, tmp_path / "out", context, None, 1)
    write_job(tmp_path, job)
    script = (
        "from pathlib import Path; from l2dm.training import launch; import sys; "
        "job = launch.read_job(Path(sys.argv[1])); "
        "launch.together(job.sources, job.out, job.context)"
    )
    step = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        assert until(lambda: len(rank_processes()) == 2, seconds=60)
    finally:
        step.kill()
        step.wait()
    assert until(lambda: rank_processes() == {}, seconds=30)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_more_processes_than_new_pictures_a_step_are_refused() -> None:
    with pytest.raises(BadSpec, match=r"train.processes: expected at most train.batch \(3\)"):
        specs.override(specs.Spec(), [*TINY, "train.processes=4"])


def test_more_processes_than_gpus_are_refused(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadSpec, match="each of the 1 GPUs of this machine, found 2"):
        ready.train(tmp_path / "out", "train.processes=2")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_shares_are_the_whole_batch_in_order(size: int) -> None:
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 100), "epsilon")
    parent = Door(Path(), doors.Adapter("none", "none", (), "b", ""), "")
    pools = [Pool(torch.randn(9, 4, 2, 2), tuple((f"{k}{i}",) for i in range(9))) for k in "abc"]
    lesson = Lesson(doors.Concept("a", "b"), parent, *pools, seed=1)
    whole = draw_batch(lesson, schedule, 3, new=5, replay=2)
    shares = [Rank(State(rank, size)).share(whole) for rank in range(size)]
    for group in ("new", "replay", "prior"):
        wanted, parts = getattr(whole, group), [getattr(one, group) for one in shares]
        assert sum((part.prompts for part in parts), ()) == wanted.prompts
        for field in ("noisy", "target", "timesteps"):
            joined = torch.cat([getattr(part, field) for part in parts])
            assert torch.equal(joined, getattr(wanted, field))
        lengths = [len(part) for part in parts]
        assert lengths == sorted(lengths, reverse=True)
        assert max(lengths) - min(lengths) <= 1
    assert isinstance(shares[0], Batch)
    with gpu():
        share = Rank(State(0, size, GPU)).share(whole)
        for part in (share.new, share.replay, share.prior):
            assert {one.device for one in (part.noisy, part.target, part.timesteps)} == {GPU}


@dataclass
class State:
    """What accelerate's process state says of a rank."""

    process_index: int
    num_processes: int
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable


def rank_process(rank: int) -> int:
    return rank_processes()[rank]


def rank_processes() -> dict[int, int]:
    """The ranks below this process that run now: rank -> process id."""
    found: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = f"L2DM_TOGETHER={os.getpid()}".encode() in environment
        if mine and b"l2dm.training.rank" in command:
            (rank,) = (one for one in environment if one.startswith(b"RANK="))
            found[int(rank.removeprefix(b"RANK="))] = int(process.name)
    return found


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test starts carries its process id, so that it ends no other test's ranks."""
    monkeypatch.setenv("L2DM_TOGETHER", str(os.getpid()))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
