"""Rows of pictures, task after task: from made-up doors, read in the page."""

import re

import torch

from l2dm.files import door_files
from l2dm.reporting.pictures import concepts
from l2dm.reporting.report import render
from l2dm.reporting.story import tell
from tests.worlds import history


def test_pictures_that_did_not_change_are_called_identical(tmp_path):
    def still(at, what):
        shade = {"real": 200, 0: 100}.get(at, 50)
        return torch.full((4, 3, 8, 8), shade, dtype=torch.uint8)

    entries = history.line(tmp_path / "still", history.concepts(2), paint=still)
    concepts = render("pets", entries).split("Class prompts before")[0]
    assert concepts.count(">identical</div>") == 1  # c1 after t0002; c2 was only just learned
    moving = history.line(tmp_path / "moving", history.concepts(2))
    assert ">identical</div>" not in render("pets", moving).split("Class prompts before")[0]


def test_each_concept_has_its_real_pictures_the_base_and_every_task_since_it_was_learned(tmp_path):
    story = tell("pets", history.line(tmp_path, history.concepts(2)))
    blocks = str(concepts(story, story.scores)).split("<h3>")[1:]
    labels = [re.findall(r"><span>(\w+)</span>", block) for block in blocks]
    assert labels == [["real", "base", "t0001", "t0002"], ["real", "base", "t0002"]]


def test_a_row_without_a_file_is_left_out(tmp_path):
    story = tell("pets", history.line(tmp_path, history.concepts(2)))
    old = story.scores.path(door_files.concept_sheet("t0001", "c1"))
    old.unlink()
    assert ">t0001</span>" not in concepts(story, story.scores)
