"""Memory and evaluation drawn in shards: the same doors, byte for byte; who is missing is named."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import sampling
from l2dm.bases.model import load_base
from l2dm.errors import BadDoor, BadSpec
from l2dm.evaluation import matrix
from l2dm.evaluation.shards import Shard, names
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door

TINY = (
    *("intake.min_side=8", "prior.count=3", "memory.candidates=2", "memory.budget=8"),
    *("train.steps=3", "train.rank=2", "train.batch=2", "train.method=l2dm", "l2dm.replay_batch=1"),
    *("evaluate.pictures=2", "evaluate.distractors=4", "sampling.batch=2"),
)


@dataclass(frozen=True)
class Second:
    """The second task of a line, trained; `memory` and `scores` as one process draws them."""

    folders: dict[str, Path]
    base: str
    root: Path

    def context(self, *settings: str) -> steps.Context:
        spec = specs.override(specs.Spec(), [*TINY, *settings])
        return steps.Context(self.base, "pets", "t0002", 1, spec)

    def some(self, *wanted: str) -> list[Path]:
        return [self.folders[name] for name in wanted]

    def draw_memory(self, out: Path, shard: str) -> Path:
        given = self.some("task", "parent")
        return steps.draw_memory(*given, out, self.context(), shard=shard).folder

    def draw_evaluation(self, out: Path, shard: str, *settings: str) -> Path:
        given = self.some("task", "parent", "prior", "adapter")
        return steps.draw_evaluation(*given, out, self.context(*settings), shard=shard).folder

    def score_memory(self, out: Path, drawn: Sequence[Path]) -> Door[doors.Memory]:
        given = self.some("task", "parent")
        return steps.score_memory(*given, out, self.context(), drawn=drawn)

    def evaluate(self, out: Path, drawn: Sequence[Path]) -> Door[doors.Scores]:
        given = self.some("task", "parent", "prior", "memory", "adapter")
        return steps.evaluate(*given, out, self.context(), drawn=drawn)


@pytest.fixture(scope="module")
def second(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Second:
    from tests.worlds import tiny

    root = tmp_path_factory.mktemp("second")
    folders = tiny.second_task(root, str(tiny_base), TINY)
    ready = Second(folders | {"adapter": root / "adapter"}, str(tiny_base), root)
    steps.train(*ready.some("task", "parent", "prior", "memory"), root / "adapter", ready.context())
    ready.evaluate(root / "scores", ())
    return ready


@contextlib.contextmanager
def no_drawing() -> Iterator[None]:
    """Inside nobody draws: what is gathered is all there is."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("drawn again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_denoise", refuse)
        yield


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_memory_from_shards_is_the_memory(second: Second, tmp_path: Path, count: int) -> None:
    parts = [second.draw_memory(tmp_path / f"{i}", name) for i, name in enumerate(names(count))]
    calls = [len(manifest.read(part, doors.Drawn).record.calls) for part in parts]
    assert sum(calls) == 3  # six candidates in batches of two
    assert max(calls) - min(calls) <= 1
    with no_drawing():
        gathered = second.score_memory(tmp_path / "memory", parts[::-1])
    assert gathered.digest == manifest.read(second.folders["memory"], doors.Memory).digest
    assert contents(tmp_path / "memory") == contents(second.folders["memory"])
    assert gathered.record.short_term


@pytest.mark.parametrize("count", [1, 2, 3])
def test_scores_from_shards_are_the_scores(second: Second, tmp_path: Path, count: int) -> None:
    parts = [second.draw_evaluation(tmp_path / f"{i}", name) for i, name in enumerate(names(count))]
    with no_drawing():
        gathered = second.evaluate(tmp_path / "scores", parts[::-1])
    assert gathered.digest == manifest.read(second.root / "scores", doors.Scores).digest
    assert contents(tmp_path / "scores") == contents(second.root / "scores")


def test_a_base_that_draws_again_for_the_drift_is_shared_out_too(
    second: Second, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "LAST_BITS", 255)  # any difference is one of last bits
    whole = second.evaluate(tmp_path / "whole", ())
    assert {one.distance for one in whole.record.drift} != {0.0}
    part = second.draw_evaluation(tmp_path / "1", "1/1")
    bare = [call for call in manifest.read(part, doors.Drawn).record.calls if call.bare]
    assert len(bare) == 1 + len(whole.record.drift) - 1  # the new concept, two nouns of this row
    with no_drawing():
        assert second.evaluate(tmp_path / "scores", [part]).digest == whole.digest


def test_a_missing_doubled_or_foreign_shard_is_refused(second: Second, tmp_path: Path) -> None:
    first = second.draw_evaluation(tmp_path / "1", "1/2")
    with pytest.raises(BadDoor, match=r"the shards \['1/2', '2/2'\] of evaluate, found \['1/2'\]"):
        second.evaluate(tmp_path / "scores", [first])
    with pytest.raises(BadDoor, match=r"found \['1/2', '1/2'\]"):
        second.evaluate(tmp_path / "scores", [first, first])
    with pytest.raises(BadDoor, match="found shard 1/2 of evaluate, made from"):
        second.score_memory(tmp_path / "memory", [first])
    other = second.draw_evaluation(tmp_path / "2", "2/2", "sampling.steps=2")
    with pytest.raises(BadDoor, match=r"expected a shard of this evaluate .* another spec"):
        second.evaluate(tmp_path / "scores", [first, other])
    assert not (tmp_path / "scores").exists()


def test_a_shard_that_lacks_a_picture_is_noticed(second: Second, tmp_path: Path) -> None:
    part = second.draw_evaluation(tmp_path / "1", "1/1")
    door = manifest.read(part, doors.Drawn)
    less = doors.Drawn("evaluate", "1/1", door.record.base, door.record.calls[:-1])
    damaged = manifest.write(
        tmp_path / "less", less,
        lambda draft: shutil.copy(part / door_files.DRAWN, draft),  # type: ignore[arg-type]
        spec=door.spec, seed=door.seed, inputs=door.inputs,
    )  # fmt: skip
    with pytest.raises(BadDoor, match="found none of them; run the shards again"):
        second.evaluate(tmp_path / "scores", [damaged.folder])


def test_a_model_knows_when_it_is_the_bare_base(second: Second) -> None:
    model = load_base(second.base)
    assert not model.bare
    with model.plain():
        assert model.bare
        with model.plain():
            pass
        assert model.bare
    assert not model.bare


def test_shards_share_everything_once() -> None:
    items = list("abcdefg")
    for count in (1, 2, 3, 7, 9):
        parts = [Shard.named(name).mine(items) for name in names(count)]
        assert sorted("".join("".join(part) for part in parts)) == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("name", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2", "1.0/2"])
def test_a_shard_has_a_number_and_a_count(name: str) -> None:
    with pytest.raises(BadSpec, match='expected a name such as "2/4"'):
        Shard.named(name)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
