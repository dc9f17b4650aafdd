"""A concept is taken out of a release: of it nothing is left, the others draw the same bytes."""

import json
from pathlib import Path

import pytest
import torch

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import sampling
from l2dm.errors import DoesNotFit, UnknownLine
from l2dm.evaluation.matrix import no_scores
from l2dm.files import door_files, manifest
from l2dm.releases import folder as releases
from l2dm.releases.load import load_release
from l2dm.releases.without import Change, require_exact, without
from l2dm.reporting.report import ReportEntry, render, summary_markdown
from tests.worlds.handmade import make_release
from tests.worlds.six_steps import SPEC, Run, upload

NAMES = {"ada": "dog", "bolt": "cup", "cleo": "cat", "dora": "dog", "edna": "cup"}
GATED = specs.override(
    SPEC,
    [
        *("train.method=gated", "train.token_rate=1.0", "train.steps=2", "prior.count=1"),
        *("sampling.steps=1", "evaluate.pictures=1", "evaluate.distractors=2"),
    ],
)
PLAIN = ("a photo of a dog", "a red cup", "a picture of a cat in the photo")


@pytest.fixture(scope="module")
def line(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ...]:
    """Five concepts, learned one after the other with gated adapters."""
    root, runs = tmp_path_factory.mktemp("line"), list[Run]()
    parent = steps.empty_release(root / "empty", "pets", str(tiny_base)).folder
    for number, (name, noun) in enumerate(NAMES.items(), start=1):
        uploaded = upload(root, doors.Concept(name, noun), number)
        home = root / str(number)
        runs.append(Run(home, tiny_base, uploaded, parent, number, GATED))
        parent = home / "release"
    return tuple(runs)


def drawn(release: Path, base: Path, names: dict[str, str]) -> torch.Tensor:
    prompts = [f"a photo of a <{name}> {noun}" for name, noun in names.items()]
    shots = [sampling.Shot(prompt, seed) for prompt in (*prompts, *PLAIN) for seed in (3, 4)]
    both = [sampling.Shot("a <ada> dog and a <edna> cup", 5)] if {"ada", "edna"} <= {*names} else []
    return sampling.draw(load_release(release, str(base)), [*shots, *both], GATED.sampling)


@pytest.mark.parametrize("name", ["ada", "cleo", "edna"])
def test_the_others_and_plain_prompts_draw_the_same_bytes(
    line: tuple[Run, ...], tiny_base: Path, tmp_path: Path, name: str
) -> None:
    whole = line[-1].home / "release"
    left = without(whole, name, tmp_path / "left", Change("t0006", 5))
    others = {one: noun for one, noun in NAMES.items() if one != name}
    before, after = (drawn(one, tiny_base, others) for one in (whole, left.folder))
    assert torch.equal(before, after)
    bare = drawn(line[0].parent, tiny_base, {})
    assert torch.equal(after[2 * len(others) :][: len(bare)], bare)  # plain: still the base
    assert not torch.equal(after[0], before[2])  # and the pictures are no blank


def test_of_the_concept_nothing_is_left(line: tuple[Run, ...], tmp_path: Path) -> None:
    whole = line[-1].home / "release"
    left = without(whole, "cleo", tmp_path / "left", Change("t0006", 5))
    record, scores = left.record, releases.scores_of(left.folder)
    assert (record.task, record.parent_version, record.concept) == ("t0006", 5, None)
    files = [path for path in left.folder.rglob("*") if path.is_file()]
    for path in files:
        assert "cleo" not in path.as_posix().removeprefix(str(tmp_path))
        assert b"cleo" not in path.read_bytes()
    old = door_files.read_long_term(releases.memory_of(whole))
    gone = [old["cleo"].image, old["cleo"].identity]
    rows = door_files.read_rows(releases.adapter_of(whole))["cleo"]
    for row in (row for one in (*gone, rows) for row in one.reshape(len(one), -1)):
        assert not any(row.numpy().tobytes() in path.read_bytes() for path in files)
    assert scores.record.rows == ("base", "t0001", "t0002", "t0004", "t0005")
    assert [one.name for one in scores.record.concepts] == ["ada", "bolt", "dora", "edna"]
    assert "cat" not in {one.noun for one in scores.record.drift}  # nobody else is one
    kept = [one.as_posix() for one in files if door_files.SHEETS in one.parts]
    assert not [one for one in kept if "t0003" in one or "class-cat" in one]
    assert [one for one in kept if one.endswith("real/ada.png")]


def test_what_was_measured_of_the_others_is_as_it_was(
    line: tuple[Run, ...], tmp_path: Path
) -> None:
    whole = releases.scores_of(line[-1].home / "release").record
    left = without(line[-1].home / "release", "bolt", tmp_path / "left", Change("t0006", 5))
    found = releases.scores_of(left.folder).record
    for metric, matrix in whole.matrices.items():
        for row in found.rows:
            for column, concept in enumerate(found.concepts):
                before = matrix[whole.rows.index(row)][whole.concepts.index(concept)]
                assert found.matrices[metric][found.rows.index(row)][column] == before
    diagonal = [found.matrices["image_alignment"][at + 1][at] for at in range(4)]
    assert None not in diagonal


def test_a_line_learns_on_and_is_checked_after_it(
    line: tuple[Run, ...], tiny_base: Path, tmp_path: Path
) -> None:
    left = without(line[1].home / "release", "ada", tmp_path / "left", Change("t0003", 2))
    context = steps.Context(str(tiny_base), "pets", "", 3, GATED)
    check = steps.check(left.folder, tmp_path / "check", context, seed=9)
    assert (check.record.health, [one.concept for one in check.record.findings]) == (
        "healthy",
        ["bolt"],
    )
    again = upload(tmp_path, doors.Concept("ada", "dog"), 7)  # its name is free again
    run = Run(tmp_path / "again", tiny_base, again, left.folder, 4, GATED)
    assert [one.name for one in run.adapter.record.concepts] == ["bolt", "ada"]
    assert run.scores.record.rows == ("base", "t0002", "t0004")


def test_the_last_one_leaves_the_bare_base(
    line: tuple[Run, ...], tiny_base: Path, tmp_path: Path
) -> None:
    left = without(line[0].home / "release", "ada", tmp_path / "left", Change("t0002", 1))
    base = releases.adapter_of(left.folder).record.base
    assert releases.scores_of(left.folder).record == no_scores(base)
    assert releases.adapter_of(left.folder).record.kind == "none"
    uploaded = upload(tmp_path, doors.Concept("bolt", "cup"), 2)
    run = Run(tmp_path / "on", tiny_base, uploaded, left.folder, 3, GATED)
    assert [one.name for one in run.adapter.record.concepts] == ["bolt"]
    context = steps.Context(str(tiny_base), "pets", "", 2, GATED)
    check = steps.check(left.folder, tmp_path / "check", context, seed=9)
    assert check.record.health == "healthy"
    entry = ReportEntry(2, manifest.read(left.folder, doors.Release), ("champion",))
    assert "ada" not in render("pets", [entry], [], [])


def test_the_report_shows_the_release_without_it(line: tuple[Run, ...], tmp_path: Path) -> None:
    left = without(line[2].home / "release", "cleo", tmp_path / "left", Change("t0004", 3))
    history = [
        ReportEntry(3, line[2].release, ("previous",)),
        ReportEntry(4, manifest.read(left.folder, doors.Release), ("champion",)),
    ]
    assert summary_markdown("pets", history).startswith("## pets: version 4")
    page = render("pets", history, [], [])
    assert "taken out of the version before" in page


def test_the_same_inputs_give_the_same_bytes(line: tuple[Run, ...], tmp_path: Path) -> None:
    """So that a repeat after a kill is the same version."""
    whole, change = line[2].home / "release", Change("t0006", 3)
    first, second = (without(whole, "bolt", tmp_path / name, change) for name in ("a", "b"))
    assert first.digest == second.digest
    assert json.loads(first.path(manifest.FILE).read_text()) == json.loads(
        second.path(manifest.FILE).read_text()
    )


@pytest.mark.parametrize("kind", ["lowrank", "spectral"])
def test_where_concepts_share_weights_it_is_refused_with_the_reason(
    tiny_base: Path, tmp_path: Path, kind: str
) -> None:
    release = make_release(tmp_path / "release", str(tiny_base), kind)
    with pytest.raises(DoesNotFit, match=f"adapter '{kind}' is one for all concepts"):
        require_exact(release)


def test_where_the_method_keeps_sums_over_all_it_is_refused(
    line: tuple[Run, ...], tmp_path: Path
) -> None:
    require_exact(line[1].home / "release")
    folder, weights = tmp_path / "release", {"ada/x.down": torch.ones(1)}
    record = doors.Adapter("ewc", "gated", (doors.Concept("ada", "dog"),), "b", "")
    manifest.write(
        folder / "adapter",
        record,
        lambda draft: door_files.write_adapter(draft, weights, {}, {"fisher": torch.ones(1)}),
    )
    with pytest.raises(DoesNotFit, match="numbers that sum over all concepts"):
        require_exact(folder)


def test_a_name_that_it_does_not_know_is_refused(line: tuple[Run, ...], tmp_path: Path) -> None:
    with pytest.raises(UnknownLine, match=r"\['ada', 'bolt'\].*found 'rex'"):
        without(line[1].home / "release", "rex", tmp_path / "left", Change("t0003", 2))
