import errno
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from l2dm.errors import BadUpload
from l2dm.uploads.folder import read_upload, write_upload
from tests.worlds.uploads import MILO, SPEC, everything, pictures


def test_bytes_are_kept_and_listed(folder, place):
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    assert everything(place.parent) == [
        "milo",
        "milo/00.jpg",
        "milo/01.png",
        "milo/02.webp",
        "milo/concept.json",
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


def test_an_upload_that_waits_already_is_refused_and_kept(tmp_path, folder, place):
    first = write_upload(place, folder, "pets", MILO, SPEC, {})
    other = pictures(tmp_path / "other", 4, first=50)
    (other / "notes.txt").write_text("x")
    with pytest.raises(BadUpload, match=r"found one already waiting in .*milo'; choose") as caught:
        write_upload(place, other, "pets", MILO, SPEC, {})
    assert len(caught.value.problems) == 2  # and the text file
    assert read_upload(place) == first


def test_other_files_in_its_place_are_left_alone(folder):
    """The pictures themselves, for one."""
    before = everything(folder)
    with pytest.raises(BadUpload, match="not there yet, found one with other files at"):
        write_upload(folder, folder, "pets", MILO, SPEC, {})
    assert everything(folder) == before


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ["mkdir", "rename"])
def test_a_full_disk_leaves_nothing(name, folder, place, monkeypatch):
    place.parent.mkdir()
    with monkeypatch.context() as full:
        full.setattr(os, name, no_space)
        with pytest.raises(OSError, match="No space left"):
            write_upload(place, folder, "pets", MILO, SPEC, {})
    assert everything(place.parent) == []
    write_upload(place, folder, "pets", MILO, SPEC, {})


DYING = """
import os, sys
from pathlib import Path
from l2dm.doors import Concept
from l2dm.spec import IntakeSpec
from l2dm.uploads.folder import write_upload

os.rename = lambda *arguments: os._exit(9)  # runs no handler, as kill -9
folder, place = map(Path, sys.argv[1:])
write_upload(place, folder, "pets", Concept("milo", "dog"), IntakeSpec(), {})
"""


def test_killed_before_the_end_leaves_no_upload(folder, place):
    command = [sys.executable, "-c", DYING, str(folder), str(place)]
    assert subprocess.run(command, check=False).returncode == 9
    assert not place.exists()
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    assert read_upload(place) == upload


def test_of_two_that_race_exactly_one_wins(tmp_path, place):
    folders = [pictures(tmp_path / str(i), 3, first=10 * i) for i in range(6)]

    def attempt(folder):
        try:
            return write_upload(place, folder, "pets", MILO, SPEC, {})
        except BadUpload as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(attempt, folders))
    (winner,) = (result for result in results if not isinstance(result, BadUpload))
    assert read_upload(place) == winner
    assert [path.name for path in place.parent.iterdir()] == ["milo"]
