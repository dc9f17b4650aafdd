"""The team set-up on one machine: state in a bucket, MLflow on PostgreSQL, a dispatcher.

One upload is submitted into the bucket, learned by the compiled pipeline on a tiny base, and found
again as the champion by a process that knows nothing but the addresses.
"""

import random
import uuid
from pathlib import Path

import pytest
from PIL import Image

from l2dm.doors import Concept
from l2dm.spec import Spec, override
from pipelines.commands import operations

pytestmark = pytest.mark.slow

TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=4", "train.batch=2", "train.replay_batch=1", "train.checkpoint_every=1"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2"),
)


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        noise = random.Random(number).randbytes(192)
        small = Image.frombytes("RGB", (8, 8), noise)
        small.resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


def test_an_upload_in_a_bucket_becomes_the_champion(
    place: str, tiny_base: Path, tmp_path: Path
) -> None:
    line = f"pets-{uuid.uuid4().hex[:6]}"
    intake = override(Spec(), TINY).intake
    operations.submit(place, pictures(tmp_path / "in"), line, Concept("rex", "dog"), intake)
    (before,) = operations.status(place, line, refresh=False)
    assert [one["state"] for one in before["concepts"]] == ["waiting"]

    moves = operations.dispatch(
        place, str(tiny_base), TINY, operations.Service(every=0.5, once=True, listen="127.0.0.1:0")
    )
    moved = [one for _, one in moves]
    assert (moved[0], moved[-1]) == ("started", "idle")
    # again: the run recorded its end while it was looked at
    assert set(moved) <= {"started", "running", "again", "idle"}

    (now,) = operations.status(place, line, refresh=True)
    assert (now["champion"], now["concepts"][0]["state"]) == (1, "promoted")
    kinds = [event["kind"] for event in operations.history(place, line)]
    assert kinds == ["submitted", "started", "begun", "promotion", "ended"]
    assert operations.report(place, line) == f"{place}/reports/{line}.html"
    drawn = operations.generate(
        operations.Place(place, line, str(tiny_base), TINY),
        "champion",
        "a photo of a <rex> dog",
        [0],
        tmp_path / "out",
        lambda progress: None,
    )
    with Image.open(drawn[0]) as picture:
        assert picture.size == (16, 16)
