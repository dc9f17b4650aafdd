"""A release checked on the tiny base: unchanged, damaged, on another base, torn."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.errors import BadDoor
from l2dm.files import door_files, manifest
from l2dm.releases import folder as releases
from l2dm.releases.check import check
from tests.worlds.six_steps import REX, SPEC, TOM, Run, upload

Higher = Mapping[tuple[str, str | None, str], float]  # by row, concept and metric
GATED = specs.override(SPEC, ["train.method=gated", "train.token_rate=1.0"])


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The second task of a line: its release knows a dog and a cat."""
    root = tmp_path_factory.mktemp("runs")
    empty = steps.empty_release(root / "empty", "pets", str(tiny_base)).folder
    first = Run(root / "1", tiny_base, upload(root, REX, 1), empty, 1, GATED)
    return Run(root / "2", tiny_base, upload(root, TOM, 2), first.release.folder, 2, GATED)


def signed(release: Path, out: Path, part: str, fill: Callable[[Path], None]) -> Path:
    """A copy of a release with another payload of one part, signed as if it were right."""
    shutil.copytree(release, out)
    kind = {"adapter": doors.Adapter, "scores": doors.Scores}[part]
    manifest.write(out / part, manifest.read(release / part, kind).record, fill)
    record = manifest.read(release, doors.Release)

    def parts(draft: Path) -> None:
        for name in ("adapter", "memory", "scores"):
            shutil.copytree(out / name, draft / name)

    manifest.write(out, record.record, parts, spec=record.spec)
    return out


def damaged(release: Path, out: Path, concept: str) -> Path:
    """The same release with one concept's token row turned around."""
    adapter = releases.adapter_of(release)
    weights, rows = door_files.read_weights(adapter), door_files.read_rows(adapter)
    rows[concept] = -rows[concept]
    curve = door_files.read_curve(adapter.folder)

    def fill(draft: Path) -> None:
        door_files.write_adapter(draft, weights, rows, curve=curve)

    return signed(release, out, "adapter", fill)


def revalued(release: Path, out: Path, higher: Higher) -> Path:
    """The same release as if its pictures had scored more."""
    measured = []
    for one in door_files.read_measurements(releases.scores_of(release)):
        more = {metric: higher.get((one.row, one.concept, metric), 0.0) for metric in one.metrics}
        metrics = {metric: value + more[metric] for metric, value in one.metrics.items()}
        measured.append(replace(one, metrics=metrics))
    return signed(release, out, "scores", lambda at: door_files.write_measurements(at, measured))


def test_an_unchanged_release_is_healthy_picture_by_picture(run: Run, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    door = steps.check(
        run.release.folder, tmp_path / "check", run.context, seed=999,
        on_progress=lambda *counts: done.append(counts),
    )  # fmt: skip
    found = door.record
    assert (found.health, found.cause, found.control) == ("healthy", "", 0.0)
    assert [one.concept for one in found.findings] == ["rex", "tom"]
    assert [one.moved for one in found.findings] == [0.0, 0.0]
    assert (found.row, found.seed, found.base) == ("t0002", 999, run.task.record.base)
    assert door.inputs == {"release": run.release.digest}
    measured = door_files.read_measurements(door)
    assert {(one.concept, one.row) for one in measured} == {
        (concept, row) for concept in ("rex", "tom") for row in ("again", "fresh")
    }
    assert [one.seed for one in measured if one.row == "fresh"] == [999, 1000] * 2
    assert door.path(door_files.check_sheet("rex")).is_file()
    assert done[-1] == (10, 10)  # two pictures twice of two concepts, two of the base
    again = steps.check(run.release.folder, tmp_path / "2", run.context, seed=999)
    assert again.digest == door.digest


def test_a_damaged_row_moves_its_concept_alone(run: Run, tmp_path: Path) -> None:
    release = damaged(run.release.folder, tmp_path / "damaged", "rex")
    found = steps.check(release, tmp_path / "check", run.context, seed=999).record
    rex, tom = found.findings
    assert rex.moved > 0.001
    assert tom.moved == 0.0
    assert found.control == 0.0


def test_in_the_same_environment_two_pictures_tell_a_loss(run: Run, tmp_path: Path) -> None:
    """As if rex had scored 0.3 more at its release, on both of its pictures."""
    higher: Higher = {("t0002", "rex", "identity_similarity"): 0.3}
    release = revalued(run.release.folder, tmp_path / "release", higher)
    found = steps.check(release, tmp_path / "check", run.context, seed=999).record
    assert (found.health, found.cause, found.control) == ("regressed", "model", 0.0)
    assert [one.health for one in found.findings] == ["regressed", "healthy"]
    assert found.findings[0].drop == pytest.approx(0.3)


def test_a_base_that_moved_by_any_measure_leaves_them_to_chance(run: Run, tmp_path: Path) -> None:
    """The same, and the bare base is 0.01 further from its prompts than it was."""
    higher: Higher = {
        ("t0002", "rex", "identity_similarity"): 0.3,
        ("base", "tom", "text_alignment"): 0.01,
    }
    release = revalued(run.release.folder, tmp_path / "release", higher)
    found = steps.check(release, tmp_path / "check", run.context, seed=999).record
    assert found.control == pytest.approx(0.01)
    assert (found.health, found.cause) == ("inconclusive", "environment")
    assert "2 pictures of the release's seeds (p = 0.2500 of all concepts); 5" in found.reasons[1]


def test_files_that_were_changed_are_a_regression_of_the_release(run: Run, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(run.release.folder, release)
    (release / door_files.ADAPTER / door_files.ROWS).write_bytes(b"rotten")
    found = steps.check(release, tmp_path / "check", run.context, seed=1).record
    assert (found.health, found.cause, found.findings) == ("regressed", "release", ())
    assert "is not what was written: changed" in found.reasons[0]
    assert str(tmp_path) not in found.reasons[0] and "l2dm rollback" in found.reasons[0]


def test_another_base_is_told_from_a_forgotten_concept(run: Run, tmp_path: Path) -> None:
    from tests.worlds import tiny

    other = steps.Context(
        str(tiny.base(tmp_path / "base", seed=1)), "pets", "", 2, run.context.spec
    )
    found = steps.check(run.release.folder, tmp_path / "check", other, seed=1).record
    assert (found.health, found.cause) == ("regressed", "base")
    assert run.task.record.base in found.reasons[0]


def test_a_release_without_values_cannot_be_compared(run: Run, tmp_path: Path) -> None:
    scores = releases.scores_of(run.release.folder)
    bare = manifest.write(
        tmp_path / "scores", scores.record, lambda draft: door_files.write_measurements(draft, ())
    )
    with pytest.raises(BadDoor, match="expected values of <rex> in row t0002"):
        check(None, bare, releases.memory_of(run.release.folder), 1)  # type: ignore[arg-type]
