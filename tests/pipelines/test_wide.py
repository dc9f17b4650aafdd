"""A long line: the pipeline shares out drawing and training, and every door stays what it was.

Slow: a run starts fourteen processes, most of which load the libraries.
"""

from pathlib import Path

import pytest

from components.runtime.outcomes import MODEL_CODE
from components.services.line.leases import Leases
from components.services.line.ledger import ConceptState
from components.services.line.promotion import settle
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from l2dm import doors, steps
from l2dm.files import manifest
from l2dm.spec import Spec, override, to_json
from pipelines.places.compilation import STEPS
from pipelines.places.run_here import Job, run_local
from tests.worlds import tiny

pytestmark = pytest.mark.slow

TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=2", "memory.budget=8"),
    *("train.steps=4", "train.batch=2", "train.method=l2dm", "l2dm.replay_batch=1", "train.rank=2"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "sampling.batch=2"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "gate.max_text_loss=9"),
)
SHARED = (
    *(*TINY, "memory.fan_out=1", "memory.shards=3", "evaluate.fan_out=1", "evaluate.shards=2"),
    "train.processes=2",
)


def first_version(home: Home, base: str, root: Path) -> None:
    """The line has learned rex, by the steps alone."""
    release = tiny.second_task(root, base, TINY)["parent"]
    door = manifest.read(release, doors.Release)
    records, registry = Records(home.store, "pets"), MlflowRegistry(home, base, MODEL_CODE)
    begun = {"task": "t0001", "parent_version": 0, "upload": "u"}
    records.append("begun", concept="rex", class_noun="dog", **begun)
    facts = VersionFacts("t0001", "rex", "dog", 0, door.digest, True)
    version = registry.register("pets", release, facts)
    assert settle(registry, records, "pets", version)
    ended = ConceptState("rex", "dog", "promoted", version, task="t0001", upload="u")
    records.end(ended)


def test_what_is_gathered_equals_what_one_process_draws(
    home: Home, tiny_base: Path, tmp_path: Path
) -> None:
    base, spec = str(tiny_base), override(Spec(), SHARED)
    first_version(home, base, tmp_path / "first")
    tiny.upload(tmp_path, home.inbox, doors.Concept("mimi", "cat"), spec)
    with Leases(home.store).held("pets") as keeper:
        job = Job("pets", "mimi", base, to_json(spec), home, keeper.lease("pets").fence)
        assert job.pipeline == "learn_concept_wide"
        outcome = run_local(job, lambda progress: None)
    drawn = {f"draw_memory_{n}" for n in (1, 2, 3)} | {f"draw_evaluation_{n}" for n in (1, 2)}
    assert set(outcome.costs) == {*STEPS, *drawn}
    assert outcome.overhead >= 0
    state = Records(home.store, "pets").concept("mimi")
    assert state is not None
    assert (state.state, state.version) == ("promoted", 2)
    check_equal(outcome.release.parents[1], tmp_path / "alone", base, spec)


def check_equal(run: Path, out: Path, base: str, spec: Spec) -> None:
    """The run's memory and scores are those of one process with the run's other doors."""
    given = {
        "task": run / "intake" / "task",
        "parent": run / "intake" / "parent",
        "prior": run / "generate-prior" / "prior",
        "memory": run / "score-memory" / "memory",
        "adapter": run / "train" / "adapter",
    }
    context = steps.Context(base, "pets", "t0002", 1, spec)
    memory = steps.score_memory(given["task"], given["parent"], out / "memory", context)
    assert memory.record.short_term
    assert contents(memory.folder) == contents(given["memory"])
    scores = steps.evaluate(*given.values(), out / "scores", context)
    assert [one.name for one in scores.record.concepts] == ["rex", "mimi"]
    assert contents(scores.folder) == contents(run / "evaluate" / "scores")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a door, its manifest with record, digests and spec among them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
