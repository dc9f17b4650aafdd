from dataclasses import replace
from pathlib import Path

import pytest
import torch

from l2dm.doors import Concept, Drift, Scores
from l2dm.errors import WrongShape
from l2dm.evaluation import sheets
from l2dm.files import door_files, images


def _scores(tasks):
    rows = ("base", *(f"t{number:04d}" for number in range(1, tasks + 1)))
    return Scores(
        base="b",
        rows=rows,
        concepts=tuple(Concept(f"c{number}", "dog") for number in range(1, tasks + 1)),
        matrices={},
        drift=(Drift(rows[-1], "dog", 0.0, None),),
        ceilings={},
    )


def test_a_strip_shows_the_first_pictures_side_by_side():
    pictures = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 10, 10)
    strip = sheets.strip(pictures)
    assert strip.shape == (3, 10, 4 * 10 + 3 * images.GAP)
    assert strip[0, 5, [5, 17, 29, 41]].tolist() == [0, 1, 2, 3]


def test_large_pictures_are_shrunk_and_small_ones_stay():
    assert sheets.strip(torch.zeros(1, 3, 512, 256, dtype=torch.uint8)).shape == (3, 96, 48)
    assert sheets.strip(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (3, 64, 64)
    # 2x2 blocks of 0, 0, 0 and 200 average to 50
    checks = torch.zeros(1, 3, 192, 192, dtype=torch.uint8)
    checks[..., ::2, ::2] = 200
    assert sheets.strip(checks).unique().tolist() == [50]


def test_a_strip_of_nothing_is_refused():
    with pytest.raises(WrongShape, match="at least one picture"):
        sheets.strip(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("noun", ["../../etc", "coffee cup", "Straße", "a/b", "."])
def test_a_noun_never_leaves_its_folder(noun):
    path = door_files.class_sheet("t0001", noun)
    assert path.startswith("sheets/t0001/class-")
    assert path.count("/") == 2


@pytest.mark.parametrize(
    "noun",
    ["child's toy", "T-shirt (red)", "100% wool", "\U0001f9f8" * 40, "犬" * 40, "a#b?c", "Straße"],
)
def test_the_file_of_any_noun_has_a_name_that_disks_and_addresses_take(noun, tmp_path):
    name = Path(door_files.class_sheet("t0001", noun)).name
    assert name.isascii() and not set(name) & set("%#?&'\"()") and len(name) < 200
    (tmp_path / name).write_bytes(b"png")
    others = (noun + "x", noun.replace("'", "_"), noun.replace("犬", "猫"), noun.lower() + "!")
    taken = {Path(door_files.class_sheet("t0001", one)).name for one in others if one != noun}
    assert name not in taken


@pytest.mark.parametrize("noun", ["dog", "coffee cup", "teddy-bear_2", "St. Bernard"])
def test_the_file_of_a_plain_noun_is_called_as_ever(noun):
    assert door_files.class_sheet("t0001", noun) == door_files.quoted_class_sheet("t0001", noun)


def test_sheets_that_an_earlier_release_quoted_are_carried_on(tmp_path):
    scores = replace(_scores(2), drift=(Drift("t0001", "child's toy", 0.1, 0.0),))
    path = tmp_path / "old" / door_files.quoted_class_sheet("t0001", "child's toy")
    path.parent.mkdir(parents=True)
    path.write_text("png")
    sheets.carry(tmp_path / "old", tmp_path / "new", scores)
    assert [one.name for one in (tmp_path / "new").rglob("*.png")] == ["class-child%27s toy.png"]


def test_old_rows_are_left_behind_but_what_was_learned_is_kept(tmp_path):
    scores = _scores(9)
    old, new = tmp_path / "old", tmp_path / "new"
    for row, name in (("t0001", "c1"), ("t0002", "c1"), ("t0004", "c1"), ("base", "c1")):
        path = old / door_files.concept_sheet(row, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row)
    sheets.carry(old, new, scores)
    # t0002 is neither among the last six rows (t0004 to t0009) nor where c1 was learned
    kept = sorted(path.read_text() for path in new.rglob("*.png"))
    assert kept == ["base", "t0001", "t0004"]
