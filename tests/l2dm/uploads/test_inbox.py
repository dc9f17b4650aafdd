import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.uploads import check as uploads
from l2dm.uploads import inbox
from l2dm.uploads.check import read_upload, submit, waiting
from tests.worlds.uploads import MILO, SPEC, everything, pictures


def test_submit_keeps_bytes_and_lists_them(folder, box):
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    place = box / "pets" / "milo"
    assert everything(box) == [
        "pets",
        "pets/milo",
        "pets/milo/00.jpg",
        "pets/milo/01.png",
        "pets/milo/02.webp",
        "pets/milo/concept.json",
    ]
    for picture, name in zip(upload.pictures, ("p00.jpg", "p01.png", "p02.webp"), strict=True):
        content = (folder / name).read_bytes()
        assert (place / picture.name).read_bytes() == content
        assert picture.sha256 == hashlib.sha256(content).hexdigest()
    assert read_upload(place) == upload
    assert (upload.line, upload.concept) == ("pets", MILO)
    assert json.loads((place / "concept.json").read_text())["concept"] == {
        "name": "milo",
        "class_noun": "dog",
    }


def test_an_upload_that_waits_already_is_refused_and_kept(tmp_path, folder, box):
    first = submit(folder, box, "pets", MILO, SPEC, {})
    other = pictures(tmp_path / "other", 4, first=50)
    (other / "notes.txt").write_text("x")
    with pytest.raises(BadUpload, match=r"found one already waiting in .*milo'; choose") as caught:
        submit(other, box, "pets", MILO, SPEC, {})
    assert len(caught.value.problems) == 2  # and the text file
    assert read_upload(box / "pets/milo") == first


def test_a_half_upload_is_replaced(folder, box):
    half = pictures(box / "pets" / "milo", 4, first=50)
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    assert read_upload(half) == upload
    assert len(everything(half)) == 4


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
def test_a_full_disk_leaves_nothing(name, folder, box, monkeypatch):
    monkeypatch.setattr(os, name, no_space)
    with pytest.raises(OSError, match="No space left"):
        submit(folder, box, "pets", MILO, SPEC, {})
    assert everything(box) == ["pets"]
    assert waiting(box, "pets") == []
    monkeypatch.undo()
    submit(folder, box, "pets", MILO, SPEC, {})


DYING = """
import os, sys
from pathlib import Path
from l2dm import concepts
from l2dm.doors import Concept
from l2dm.spec import IntakeSpec

folder, inbox, name, count = sys.argv[1:]
real, left = getattr(os, name), [int(count)]

def deadly(*args, **options):
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)  # runs no handler, as kill -9
    return real(*args, **options)

setattr(os, name, deadly)
concepts.submit(Path(folder), Path(inbox), "pets", Concept("milo", "dog"), IntakeSpec(), {})
"""


@pytest.mark.parametrize(
    "where", ["fsync 1", "fsync 3", "fsync 4", "replace 1", "fsync 5", "rename 1"]
)
def test_killed_at_any_point_before_the_rename_leaves_no_upload(where, folder, box):
    command = [sys.executable, "-c", DYING, str(folder), str(box), *where.split()]
    assert subprocess.run(command, check=False).returncode == 9
    assert waiting(box, "pets") == []
    assert not (box / "pets/milo").exists()
    (draft,) = (box / "pets").iterdir()
    yesterday = time.time() - 86_400
    os.utime(draft, (yesterday, yesterday))
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    assert [path.name for path in (box / "pets").iterdir()] == ["milo"]  # the dead draft is swept
    assert read_upload(box / "pets/milo") == upload


def test_killed_after_the_rename_leaves_a_whole_upload(folder, box):
    command = [sys.executable, "-c", DYING, str(folder), str(box), "fsync", "6"]
    assert subprocess.run(command, check=False).returncode == 9
    assert len(read_upload(box / "pets/milo").pictures) == 3


def test_a_young_draft_of_another_submit_is_left_alone(folder, box):
    draft = box / "pets" / ".milo.draft-12345678"
    draft.mkdir(parents=True)
    submit(folder, box, "pets", MILO, SPEC, {})
    assert draft.is_dir()


@pytest.mark.parametrize("half", [False, True])
def test_of_two_that_race_exactly_one_wins(half, tmp_path, box):
    if half:
        pictures(box / "pets" / "milo", 3, first=90)
    folders = [pictures(tmp_path / str(i), 3, first=10 * i) for i in range(6)]

    def attempt(folder):
        try:
            return submit(folder, box, "pets", MILO, SPEC, {})
        except BadUpload as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(attempt, folders))
    losers = [result for result in results if isinstance(result, BadUpload)]
    (winner,) = (result for result in results if not isinstance(result, BadUpload))
    assert all("already waiting" in str(loser) for loser in losers)
    assert read_upload(box / "pets/milo") == winner
    assert [path.name for path in (box / "pets").iterdir()] == ["milo"]


def test_submit_waits_for_the_one_that_commits(tmp_path, folder, box):
    """Between looking for a concept.json and renaming, nobody else may commit."""
    (box / "pets").mkdir(parents=True)
    other = submit(pictures(tmp_path / "other", 3, 50), tmp_path / "away", "pets", MILO, SPEC, {})
    with ThreadPoolExecutor(1) as pool:
        with inbox._locked(box / "pets"):
            late = pool.submit(submit, folder, box, "pets", MILO, SPEC, {})
            with pytest.raises(TimeoutError):
                late.result(timeout=1.0)
            os.rename(tmp_path / "away/pets/milo", box / "pets/milo")
        with pytest.raises(BadUpload, match="already waiting"):
            late.result()
    assert read_upload(box / "pets/milo") == other


def test_a_writer_that_takes_no_lock_is_not_overwritten(folder, box, monkeypatch):
    """It comes between our look and our rename: renaming onto a folder with files in it fails."""
    rename = os.rename

    def late(source, target):
        pictures(Path(target), 1)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(BadUpload, match="already waiting"):
        submit(folder, box, "pets", MILO, SPEC, {})
    assert everything(box) == ["pets", "pets/milo", "pets/milo/p00.jpg"]


def test_the_inbox_is_in_order_of_commit(tmp_path, box):
    assert uploads.lines(box) == ()
    assert waiting(box, "pets") == []
    for i, name in enumerate(("zoe", "milo", "anton")):
        folder = pictures(tmp_path / name, 3, first=10 * i)
        submit(folder, box, "pets", Concept(name, "dog"), SPEC, {})
        os.utime(box / "pets" / name / "concept.json", (1000 + i // 2, 1000 + i // 2))
    pictures(box / "pets" / "half")
    (box / "pets" / ".draft").mkdir()
    (box / "pets" / "file").write_text("x")
    (box / "cars").mkdir()
    (box / ".hidden").mkdir()
    assert uploads.lines(box) == ("cars", "pets")
    # zoe and milo in the same second: by name
    assert [path.name for path in waiting(box, "pets")] == ["milo", "zoe", "anton"]
    assert waiting(box, "cars") == []
