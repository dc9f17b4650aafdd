"""The six steps on the tiny base: what they write, what they refuse, and that bytes repeat."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import attach, sampling
from l2dm.errors import BadBase, BadDoor, BadUpload, DoesNotFit
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door
from l2dm.releases import folder as releases
from l2dm.releases.load import load_release
from tests.worlds.six_steps import REX, SPEC, TOM, Run, upload


@pytest.fixture(scope="module")
def empty(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.empty_release(tmp_path_factory.mktemp("line") / "e", "pets", str(tiny_base)).folder


@pytest.fixture(scope="module")
def runs(tiny_base: Path, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    root = tmp_path_factory.mktemp("runs")
    first = Run(root / "1", tiny_base, upload(root, REX, 1), empty, 1, SPEC)
    second = Run(root / "2", tiny_base, upload(root, TOM, 2), first.release.folder, 2, SPEC)
    return first, second


def test_two_tasks_grow_one_line(runs: tuple[Run, Run]) -> None:
    first, second = runs
    assert second.task.record.parent == first.release.digest
    assert second.task.record.parent_version == 1
    assert second.adapter.record.concepts == (REX, TOM)
    assert second.adapter.record.parent == first.adapter.digest
    assert second.prior.record.nouns == ("cat", "dog")
    assert [one.concept for one in second.memory.record.long_term] == [REX, TOM]
    assert {entry.concept for entry in second.memory.record.short_term} == {"rex"}
    assert first.memory.record.short_term == ()
    assert second.scores.record.rows == ("base", "t0001", "t0002")
    assert door_files.read_curve(second.adapter.folder).keys() >= {"new", "distill"}


@pytest.mark.parametrize(
    "settings",
    [
        ["train.method=gated"],
        ["train.method=sequential"],
        ["train.method=l2dm", "l2dm.replay=0", "l2dm.distill=0"],
    ],
)
def test_what_does_not_replay_draws_no_candidates_but_remembers(
    settings: list[str], runs: tuple[Run, Run], tiny_base: Path, tmp_path: Path
) -> None:
    first, second = runs
    context = steps.Context(str(tiny_base), "pets", "t0002", 1, specs.override(SPEC, settings))
    drawn: list[int] = []
    memory = steps.score_memory(
        second.home / "task", first.release.folder, tmp_path / "memory", context,
        on_progress=lambda done, total: drawn.append(done),
    )  # fmt: skip
    assert not drawn
    assert memory.record.short_term == ()
    assert [one.concept for one in memory.record.long_term] == [REX, TOM]


def test_a_release_holds_its_doors_and_no_generated_or_real_training_pictures(
    runs: tuple[Run, Run],
) -> None:
    release = runs[1].release
    assert releases.adapter_of(release.folder).digest == release.record.adapter
    kept = releases.memory_of(release.folder)
    assert kept.record.short_term == ()
    assert not kept.path(door_files.SHORT_TERM).exists()
    assert kept.inputs["memory"] == release.record.memory
    assert manifest.read(release.folder, doors.Release).digest == release.digest


def test_same_inputs_and_seed_give_the_same_bytes(
    runs: tuple[Run, Run], tiny_base: Path, tmp_path: Path
) -> None:
    first, second = runs
    again = Run(tmp_path, tiny_base, upload(tmp_path, TOM, 2), first.release.folder, 2, SPEC)
    assert again.release.digest == second.release.digest
    other = specs.override(SPEC, ["seed=5"])
    context = steps.Context(str(tiny_base), "pets", "t0002", 1, other)
    task = steps.intake(tmp_path / "inbox/pets/tom", first.release.folder, tmp_path / "o", context)
    assert task.digest != second.task.digest


def test_a_release_draws_after_reload(runs: tuple[Run, Run], tiny_base: Path) -> None:
    model = load_release(runs[1].release.folder, str(tiny_base))
    shots = [sampling.Shot("a photo of a <tom> cat", 3)]
    drawn = sampling.draw(model, shots, SPEC.sampling)
    again = load_release(runs[1].release.folder, str(tiny_base))
    assert (sampling.draw(again, shots, SPEC.sampling) == drawn).all()


def test_fresh_seeds_on_a_release(runs: tuple[Run, Run]) -> None:
    row = steps.evaluate_release(runs[1].release.folder, runs[1].context, seed=999)
    assert set(row.means["identity_similarity"]) == {"rex", "tom"}


def test_prior_comes_from_the_cache_and_a_damaged_cache_is_drawn_again(
    runs: tuple[Run, Run], tmp_path: Path
) -> None:
    second, cache = runs[1], tmp_path / "cache"
    seen: list[int] = []

    def draw(out: str) -> Door[doors.Prior]:
        return steps.generate_prior(
            second.home / "task", second.parent, tmp_path / out, second.context,
            cache=cache, on_progress=lambda done, _: seen.append(done),
        )  # fmt: skip

    digest = draw("one").digest
    drawn = len(seen)
    assert draw("two").digest == digest
    assert len(seen) == drawn, "the second time nothing is drawn"
    damaged = next(cache.glob("*/pictures/0/000.png"))
    damaged.write_bytes(b"not a picture")
    assert draw("three").digest == digest
    assert len(seen) > drawn


def test_steps_refuse_a_wrong_door_by_name(runs: tuple[Run, Run], tmp_path: Path) -> None:
    first = runs[0]
    with pytest.raises(BadDoor, match="expected a Task door, found a Prior"):
        steps.score_memory(first.home / "prior", first.parent, tmp_path / "x", first.context)
    with pytest.raises(BadDoor, match=r"expected a Memory door, found a Scores"):
        steps.train(
            first.home / "task", first.parent, first.home / "prior", first.home / "scores",
            tmp_path / "x", first.context,
        )  # fmt: skip
    with pytest.raises(BadDoor, match=r"found no manifest\.json"):
        steps.intake(tmp_path, tmp_path, tmp_path / "x", first.context)
    assert not (tmp_path / "x").exists()


def test_intake_lists_every_problem(runs: tuple[Run, Run], tmp_path: Path) -> None:
    second = runs[1]
    uploaded = upload(tmp_path, REX, 9)
    with pytest.raises(BadUpload, match="the line has learned it already"):
        steps.intake(uploaded, second.release.folder, tmp_path / "x", second.context)
    foreign = upload(tmp_path, doors.Concept("zoe", "dog"), 9, line="cars")
    with pytest.raises(
        BadUpload, match=r"expected one for line 'pets', its concept.json says 'cars'"
    ):
        steps.intake(foreign, second.release.folder, tmp_path / "x", second.context)
    assert not (tmp_path / "x").exists()


def test_intake_refuses_a_base_without_encoders(
    runs: tuple[Run, Run], tmp_path: Path, tiny_base: Path
) -> None:
    """Encoders take no part in the fingerprint, so it is the line's own base as before."""
    bare = Path(shutil.copytree(tiny_base, tmp_path / "bare"))
    shutil.rmtree(bare / "identity")
    context, parent = replace(runs[0].context, base=str(bare)), runs[0].parent
    uploaded = upload(tmp_path, REX, 9)
    with pytest.raises(BadBase, match="expected identity/ with a vision model such as DINO"):
        steps.intake(uploaded, parent, tmp_path / "x", context)
    assert not (tmp_path / "x").exists()


def test_another_base_is_refused_with_both_fingerprints(
    runs: tuple[Run, Run], tmp_path: Path, tiny_base: Path
) -> None:
    from tests.worlds import tiny

    other = tiny.base(tmp_path / "other", seed=1)
    with pytest.raises(DoesNotFit, match=r"was trained on base .* this run loads"):
        load_release(runs[0].release.folder, str(other))


def test_rows_and_concepts_must_agree(runs: tuple[Run, Run], tiny_base: Path) -> None:
    from l2dm.bases.model import load_base

    model = load_base(str(tiny_base))
    with pytest.raises(DoesNotFit, match=r"lists concepts \['rex'\] but holds token rows \[\]"):
        attach.add_rows(model, (REX,), {})
