"""A base model in a bucket through everything that loads one: steps, commands, serving."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import components.evaluate
import components.generate_prior
import components.intake
import components.promote
import components.score_memory
import components.train
from components.runtime import base_cache
from components.runtime import step as runtime
from components.runtime.step import Parameters, Step, checks_of
from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.bases import folder as base_folder
from l2dm.doors import Concept, Prior
from l2dm.errors import BadBase
from l2dm.files import manifest
from l2dm.pocket import WEIGHTS
from l2dm.spec import Spec, override, to_json
from pipelines.commands.learn import learn_waiting
from pipelines.commands.target import Target, require_base
from pipelines.commands.versions.evaluate import evaluate_champion
from pipelines.commands.versions.export import export_version
from pipelines.commands.versions.generate import Order, draw
from pipelines.places.open import sees
from pipelines.places.placement import base_problems
from tests.worlds import six_steps
from tests.worlds.object_stores import Bucket

TINY = (
    *("intake.min_side=8", "prior.count=1", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=2", "train.batch=2", "train.method=l2dm"),
    *("l2dm.replay_batch=1", "sampling.steps=1"),
    *("evaluate.pictures=1", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "gate.max_text_loss=9"),
)
SPEC = to_json(override(Spec(), TINY))


class At:
    """An artifact, as a component sees it."""

    def __init__(self, path: Path) -> None:
        self.path, self.metadata = str(path), dict[str, Any]()

    def log_metric(self, name: str, value: float) -> None:
        pass


def put(bucket: Bucket, folder: Path, name: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"s3://{bucket.name}/{bucket.prefix}/{name}"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Bases that were fetched, each time."""
    told, real = list[str](), base_cache._fetched

    def fetch(objects: Any, listed: Any, entry: Path) -> bool:
        told.append(listed.base)
        return real(objects, listed, entry)

    monkeypatch.setattr(base_cache, "_fetched", fetch)
    return told


@pytest.fixture
def line(home: Home, tmp_path: Path) -> Iterator[Home]:
    """A line that waits for its first concept."""
    uploaded = six_steps.upload(tmp_path / "source", Concept("rex", "dog"), 1)
    uploaded.parents[2].joinpath("inbox").rename(home.inbox)
    yield home


def run(component: Any, home: Home, root: Path, base: str, wired: str, **more: Any) -> None:
    """One component in this process; wired: its doors by name, all in one folder."""
    doors = {name: At(root / name) for name in wired.split()}
    component.python_func(**doors, base=base, spec=SPEC, home=str(home.folder), **more)


def test_the_pocket_in_a_bucket_is_the_pocket(
    moto_bucket: Bucket, line: Home, tmp_path: Path, fetched: list[str]
) -> None:
    base, root = put(moto_bucket, WEIGHTS, "bases/pocket"), tmp_path / "doors"
    root.mkdir()
    given = {"line": "pets", "upload": "rex"}
    run(components.intake.intake, line, root, base, "task parent metrics", **given)
    run(components.generate_prior.generate_prior, line, root, base, "task parent prior metrics")
    prior = manifest.read(root / "prior", Prior).record
    assert prior.base == base_folder.fingerprint(WEIGHTS)
    assert prior.nouns == ("dog",)
    assert fetched == [base]


def test_a_line_lives_on_a_base_in_a_bucket(
    moto_bucket: Bucket, line: Home, tmp_path: Path, fetched: list[str], tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base, root = put(moto_bucket, tiny_base, "bases/small-sd"), tmp_path / "doors"
    root.mkdir()
    target = Target(line.folder, "pets", base, TINY)
    require_base(base)
    assert fetched == []  # only listed
    with Leases(line.store).held("pets") as keeper:
        fence = keeper.lease("pets").fence
        given = {"line": "pets", "upload": "rex"}
        run(components.intake.intake, line, root, base, "task parent metrics", **given)
        known = "task parent prior metrics"
        run(components.generate_prior.generate_prior, line, root, base, known)
        run(components.score_memory.score_memory, line, root, base, "task parent memory metrics")
        known = "task parent prior memory adapter metrics"
        run(components.train.train, line, root, base, known, fence=fence)
        known += " scores summary"
        run(components.evaluate.evaluate, line, root, base, known)
        known = "task parent memory adapter scores release metrics report summary"
        with warnings.catch_warnings(record=True):  # mlflow shows its own past every filter
            run(components.promote.promote, line, root, base, known, fence=fence)
    assert fetched == [base]
    assert Records(line.store, "pets").state().standing.champion == 1

    (picture,) = draw(
        target, "champion", Order(["a <rex> dog"], [1], tmp_path / "out"), print
    ).files
    assert set(evaluate_champion(target, 3)["row"]["means"]["identity_similarity"]) == {"rex"}
    export_version(target, "1", tmp_path / "export")
    assert '"name": "small-sd"' in (tmp_path / "export" / "export.json").read_text()
    assert fetched == [base]

    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))  # a server has no state folder
    release = target.registry().fetch("pets", 1, tmp_path / "fetched")
    with warnings.catch_warnings(record=True):
        from components.runtime.pyfunc import PromptToPng
    server = PromptToPng()
    config = {"base": base}
    server.load_context(SimpleNamespace(artifacts={"release": release}, model_config=config))
    (png,) = server.predict(None, {"prompt": ["a <rex> dog"]}, {"seed": 1, "steps": 1})
    # the text beside the pixels tells where each was drawn
    assert Image.open(io.BytesIO(png)).tobytes() == Image.open(picture).tobytes()
    assert fetched == [base] * 2


def test_a_step_that_loads_nothing_fetches_nothing(home: Home, fetched: list[str]) -> None:
    assert runtime.NO_BASE
    for name in runtime.NO_BASE:
        step = Step(
            name, checks_of("pets"), Parameters("s3://no-such-bucket", SPEC, str(home.folder)), None
        )
        assert step.base == "s3://no-such-bucket"
    assert fetched == []


def test_a_wrong_base_is_refused_before_a_step_is_started(moto_bucket: Bucket, line: Home) -> None:
    target = Target(line.folder, "pets", f"s3://{moto_bucket.name}/nowhere", TINY)
    with pytest.raises(BadBase, match="name the prefix that holds unet/, vae/, text_encoder/"):
        list(learn_waiting(target, lambda concept: pytest.fail("started")))
    assert Records(line.store, "pets").concept("rex") is None


def test_pods_reach_a_base_in_a_bucket() -> None:
    from pipelines.places.settings import Settings

    assert list(base_problems(Settings(), "s3://bucket/sd15")) == []
    assert sees("cluster", "s3://bucket/sd15")  # it is listed where the dispatcher runs
