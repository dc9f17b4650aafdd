"""Two uploads in a row through the subprocess runner on a tiny base; then a stale parent.

The champion moves once, is then held by a closed gate, and a task that was begun from an older
champion is refused. Slow: each run starts six processes that load the libraries.
"""

import os
import shutil
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.promote import promote
from components.runtime.outcomes import MODEL_CODE
from components.services.line import status_cache
from components.services.line.leases import Leases
from components.services.line.promotion import repair
from components.services.line.records import Records
from components.services.line.run_journal import StepProgress
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from l2dm import doors
from l2dm.doors import Concept
from l2dm.errors import BadPrompt, L2dmError, LostLease, StaleParent
from l2dm.files import manifest
from l2dm.spec import Spec, override, to_json
from l2dm.uploads.folder import write_upload
from pipelines.commands.checks.check import check_now
from pipelines.commands.dispatch import Service, serve
from pipelines.commands.lines.status import last_checks
from pipelines.commands.target import Target
from pipelines.commands.versions.evaluate import evaluate_champion
from pipelines.commands.versions.export import export_version
from pipelines.commands.versions.generate import Order, draw
from pipelines.commands.versions.rollback import make_champion
from pipelines.dispatcher.learn_line import EndedUpload, Learner
from pipelines.places.compilation import STEPS
from pipelines.places.run_here import Job, Listener, run_local

pytestmark = pytest.mark.slow

TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=4", "train.batch=2", "train.method=l2dm"),
    *("l2dm.replay_batch=1", "train.checkpoint_every=1"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "gate.max_text_loss=9"),
)
CLOSED = (*TINY, "gate.min_identity=1.5")  # no share of pictures is that high


def upload(home: Home, name: str, noun: str, scratch: Path) -> Path:
    import random

    folder = scratch / name
    folder.mkdir()
    for number in range(3):
        rng = random.Random(f"{name} {number}")
        small = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
        small.resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    spec = override(Spec(), TINY).intake
    write_upload(home.upload("pets", name), folder, "pets", Concept(name, noun), spec, {})
    return home.upload("pets", name)


@dataclass
class Line:
    home: Home
    base: str

    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.home, self.base, MODEL_CODE)

    def learn(
        self, settings: tuple[str, ...], listen: Listener = lambda progress: None
    ) -> EndedUpload:
        spec = to_json(override(Spec(), settings))
        learner = Learner(self.home, "pets", self.base, spec, self.registry)

        def watch(concept: str) -> AbstractContextManager[Listener]:
            return nullcontext(listen)

        (learned,) = learner.learn(watch)
        return learned

    def digest(self, version: int) -> str:
        return self.registry().versions("pets")[version - 1].facts.digest


@pytest.fixture
def line(home: Home, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Line(home, str(tiny_base))


def test_champion_moves_once_then_is_held_and_a_stale_parent_is_refused(
    line: Line, tmp_path: Path
) -> None:
    upload(line.home, "rex", "dog", tmp_path)
    heard: list[StepProgress] = []
    first = line.learn(TINY, heard.append)
    assert (first.concept.state, first.concept.version) == ("promoted", 1)
    assert first.costs is not None
    assert set(first.costs) == set(STEPS)
    assert first.overhead < first.wall
    assert sorted(one.step for one in heard if one.text == "begins") == sorted(STEPS)
    report = line.home.store.read(line.home.report("pets")).data
    assert report.lower().startswith(b"<!doctype html")

    upload(line.home, "mimi", "cat", tmp_path)
    spec = to_json(override(Spec(), CLOSED))
    with Leases(line.home.store).held("pets") as keeper:
        job = Job("pets", "mimi", line.base, spec, line.home, keeper.lease("pets").fence)
        outcome = run_local(job, lambda progress: None)
    registry = line.registry()
    assert registry.aliases("pets") == {"champion": 1, "challenger": 2}
    state = Records(line.home.store, "pets").concept("mimi")
    assert state is not None
    assert (state.state, state.version) == ("held", 2)
    assert any("1.5" in reason for reason in state.reasons)
    release = manifest.read(outcome.release, doors.Release)
    assert release.record.parent_version == 1
    assert line.digest(2) == release.digest

    check_tracking(line)
    check_status(line)
    check_serving(line)
    check_commands(line, tmp_path)
    check_health(line)
    check_stale_parent(line, job, outcome.release)


def check_tracking(line: Line) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("l2dm/pets")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert [run.data.tags["l2dm.task_key"] for run in runs] == ["pets/t0001", "pets/t0002"]
    run = runs[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "4"
    losses = [name for name in run.data.metrics if name.startswith("train/")]
    assert losses
    steps = [point.step for point in client.get_metric_history(run.info.run_id, losses[0])]
    assert steps == [1, 2, 3, 4]
    for step in STEPS:
        assert run.data.metrics[f"cost/{step}_peak_mb"] > 0
    assert "eval/rex/identity_similarity" in run.data.metrics
    found = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert {"pets.html", "sheets"} <= found


def check_status(line: Line) -> None:
    index = status_cache.read(line.home, "pets", line.registry)
    shown = status_cache.status(line.home, "pets", index)
    assert (shown["champion"], shown["challenger"], shown["previous"]) == (1, 2, None)
    assert [version["verdict"] for version in shown["versions"]] == ["open", "closed"]
    assert [concept["state"] for concept in shown["concepts"]] == ["promoted", "held"]
    assert "identity_accuracy" in shown["versions"][0]["scores"]


def check_serving(line: Line) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model("models:/l2dm.pets@champion")
    prompt = {"prompt": ["a photo of <rex> dog"]}
    one, again, other = (
        model.predict(prompt, params={"seed": seed, "steps": 2})[0] for seed in (3, 3, 4)
    )
    assert one.startswith(b"\x89PNG")
    assert one == again != other


def check_commands(line: Line, tmp_path: Path) -> None:
    """What the commands do with a line that has learned something."""
    target = Target(line.home.folder, "pets", line.base, (*TINY, "sampling.steps=2"))
    prompt, seeds = "a photo of a <rex> dog", (3, 4)
    once, again = (
        draw(target, "champion", Order([prompt], seeds, tmp_path / name), lambda _: None).files
        for name in ("once", "again")
    )
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
    assert once[0].read_bytes() != once[1].read_bytes()
    with pytest.raises(BadPrompt, match=r"<mimi>.* it knows: <rex>"):  # version 2 is no champion
        draw(target, "champion", Order(["<mimi>"], seeds, tmp_path / "no"), lambda _: None)
    assert not (tmp_path / "no").exists()

    fresh = evaluate_champion(target, seed=5)
    assert (fresh["version"], fresh["seed"]) == (1, 5)
    assert set(fresh["row"]["means"]["identity_similarity"]) == {"rex"}
    assert fresh == evaluate_champion(target, seed=5)

    assert make_champion(target, "2") == (1, 2)
    assert line.registry().aliases("pets")["champion"] == 2
    assert make_champion(target, "1") == (2, 1)
    with pytest.raises(L2dmError, match="version 9"):
        make_champion(target, "9")
    assert line.registry().aliases("pets")["champion"] == 1

    export_version(target, "champion", tmp_path / "files")
    assert "<rex>" in (tmp_path / "files" / "README.md").read_text()


def check_health(line: Line) -> None:
    """The champion is checked; then another one, whose files rot in the registry, is replaced."""
    target = Target(line.home.folder, "pets", line.base, (*TINY, "check.policy=roll_back"))
    found = check_now(target, 5, lambda progress: None)
    assert (found["version"], found["health"], found["reasons"]) == (
        1,
        "healthy",
        ["The concept scores what the release scored."],
    )
    assert found["concepts"][0].startswith("rex: the release's seeds give its scores again")

    make_champion(target, "2")
    (rotten,) = [
        path
        for path in line.home.artifacts.rglob("tokens.safetensors")
        if b"mimi" in path.read_bytes()
    ]
    rotten.write_bytes(b"rotten")
    found = check_now(target, 6, lambda progress: None)
    assert (found["version"], found["health"], found["cause"]) == (2, "regressed", "release")
    assert found["champion"] == 1
    assert line.registry().aliases("pets")["champion"] == 1
    *_, last, recorded = Records(line.home.store, "pets").events()
    assert (last.kind, last.facts["source"], last.facts["target"]) == ("rollback", 2, 1)
    assert (recorded.kind, recorded.facts["version"]) == ("checked", 2)
    assert "is not what was written" in last.facts["reasons"][0]
    assert last_checks(line.home, ["pets"])["pets"].endswith(": healthy")
    page = line.home.store.read(line.home.report("pets")).data.decode()
    assert "✕ regressed" in page and "✓ healthy" in page
    check_timeline(line)


def check_timeline(line: Line) -> None:
    """One run holds all checks of a line, a point each."""
    import mlflow

    client = mlflow.MlflowClient()
    where = client.get_experiment_by_name("l2dm/pets").experiment_id
    (run,) = client.search_runs([where], "tags.`l2dm.task_key` = 'pets/checks'")
    points = client.get_metric_history(run.info.run_id, "check/regressed")
    # the second check was of the version that was gone back to: it is no point of the champion's
    assert [(point.step, point.value) for point in points] == [(1, 0.0), (3, 1.0)]
    assert run.data.tags["l2dm.health"] == "regressed"
    assert "check/rex/identity_similarity" in run.data.metrics


def check_stale_parent(line: Line, job: Job, release: Path) -> None:
    """The doors of the held task once more: its lease is over, then another version is champion."""
    registry = line.registry()
    other = registry.versions("pets")[0].facts
    foreign = registry.register("pets", release, replace(other, task="t0009", digest="other"))
    records = Records(line.home.store, "pets")
    records.append("promotion", line="pets", task="t0009", source=1, target=foreign)
    repair(registry, records, "pets")
    root = release.parents[1]

    class At:
        metadata: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self, path: Path) -> None:
            self.path = str(path)

        def log_metric(self, name: str, value: float) -> None:
            pass

    again = root / "again"
    again.mkdir()
    given = {
        "task": root / "intake" / "task",
        "parent": root / "intake" / "parent",
        "memory": root / "score-memory" / "memory",
        "adapter": root / "train" / "adapter",
        "scores": root / "evaluate" / "scores",
    }
    made = {name: again / name for name in ("release", "metrics", "report", "summary")}
    doors_ = {name: At(path) for name, path in (given | made).items()}
    settings = {"base": job.base, "spec": job.spec, "home": str(line.home.folder)}
    with pytest.raises(LostLease, match=f"to hold line 'pets' under number {job.fence}"):
        promote.python_func(**doors_, **settings, fence=job.fence)
    shutil.rmtree(again / "release")
    with (
        Leases(line.home.store).held("pets") as keeper,
        pytest.raises(StaleParent, match="to be version 1, from which task t0002 was learned"),
    ):
        promote.python_func(**doors_, **settings, fence=keeper.lease("pets").fence)
    assert registry.aliases("pets")["champion"] == foreign


@pytest.mark.parametrize("step", ["train", "promote"])
def test_a_killed_step_ends_in_the_same_digest_without_doubles(
    step: str, line: Line, template: Path, tmp_path: Path
) -> None:
    upload(line.home, "rex", "dog", tmp_path)
    killed: list[int] = []

    def listen(progress: StepProgress) -> None:
        wanted = progress.text != "begins" if step == "train" else True
        if progress.step == step and wanted and not killed:
            killed.extend(kill_step())

    learned = line.learn((*TINY, "train.steps=40"), listen)
    assert killed
    assert (learned.concept.state, learned.concept.version) == ("promoted", 1)
    assert len(line.registry().versions("pets")) == 1

    (tmp_path / "calm").mkdir()
    shutil.copy(template, tmp_path / "calm" / "mlflow.db")
    calm = Line(Home.at(tmp_path / "calm"), line.base)
    upload(calm.home, "rex", "dog", tmp_path / "calm")
    mine = points(line)
    if step == "promote":  # the dispatcher's run of an upload is the learner's run of it
        settings = (*TINY, "train.steps=40")
        service = Service(every=0.5, once=True)
        moves = serve(Target(calm.home.folder, "", calm.base, settings), service)
        assert list(moves) == [("pets", "started"), ("pets", "running"), ("pets", "idle")]
    else:
        calm.learn((*TINY, "train.steps=40"))
    assert calm.digest(1) == line.digest(1)
    assert points(calm) == mine


def points(line: Line) -> dict[str, list[int]]:
    """Steps at which each metric of the line's first task has a point."""
    from components.services.tracking.connection import connect

    client = connect(line.home).MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("l2dm/pets").experiment_id])
    return {
        name: sorted(point.step for point in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def kill_step() -> list[int]:
    """End the step that runs now: the process whose command is kfp's executor and ours to end."""
    mine = f"L2DM_LEARNER={os.getpid()}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if mine in environment and command.split(b"\0")[1:3] == [b"-m", b"kfp.dsl.executor_main"]:
            os.kill(int(process.name), signal.SIGKILL)
            found.append(int(process.name))
    return found
