"""The team set-up on one machine: state in a bucket, MLflow on PostgreSQL, a dispatcher.

One upload is submitted into the bucket, learned by the compiled pipeline on a tiny base, and found
again as the champion by a process that knows nothing but the addresses.
"""

import random
import uuid
from pathlib import Path

import pytest
from PIL import Image

from components.services.store.home import Home
from l2dm.doors import Concept
from l2dm.spec import Spec, override
from pipelines.commands.dispatch import Service, serve
from pipelines.commands.learn import report_of
from pipelines.commands.lines.history import events_of
from pipelines.commands.lines.status import status_of
from pipelines.commands.target import Target
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.commands.versions.generate import Order, draw

pytestmark = pytest.mark.slow

TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=4", "train.batch=2", "train.method=l2dm"),
    *("l2dm.replay_batch=1", "train.checkpoint_every=1"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "gate.max_text_loss=9"),
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
    home, target = Home.at(place), Target(place, line, str(tiny_base), TINY)
    intake = override(Spec(), TINY).intake
    submit_pictures(home, pictures(tmp_path / "in"), line, Concept("rex", "dog"), intake)
    (before,) = status_of(home, line, refresh=False)
    assert [one["state"] for one in before["concepts"]] == ["waiting"]

    moves = serve(target, Service(every=0.5, once=True, listen="127.0.0.1:0"))
    moved = [one for _, one in moves]
    assert (moved[0], moved[-1]) == ("started", "idle")
    # again: the run recorded its end while it was looked at
    assert set(moved) <= {"started", "running", "again", "idle"}

    (now,) = status_of(home, line, refresh=True)
    assert (now["champion"], now["concepts"][0]["state"]) == (1, "promoted")
    kinds = [event["kind"] for event in events_of(home, line)[0]]
    assert kinds == ["submitted", "started", "begun", "promotion", "ended"]
    assert report_of(home, line) == f"{place}/reports/{line}.html"
    drawn = draw(
        target,
        "champion",
        Order(["a photo of a <rex> dog"], [0], tmp_path / "out"),
        lambda progress: None,
    )
    with Image.open(drawn.files[0]) as picture:
        assert picture.size == (16, 16)
