import hashlib
import json
from pathlib import Path

import pytest

from l2dm.errors import BadUpload
from l2dm.files.concept_json import FILE
from l2dm.uploads.folder import read_upload
from tests.worlds.uploads import problems, scene


def edited(place: Path, **changes) -> None:
    path = place / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_no_concept_json_is_no_upload(folder):
    with pytest.raises(
        BadUpload, match=r"expected a committed upload in .*, found no concept.json"
    ):
        read_upload(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "expected dict, found"),
        ("3", "expected dict, found 3"),
        ("{}", "missing 3 required"),
        ('{"line": "pets", "lime": 1}', r"Upload has no field \['lime'\]"),
        ('{"line": 3}', "expected str, found 3"),
        ('{"line": "pets", "concept": {"name": "milo"}, "pictures": []}', "class_noun"),
        ('{"line": "pets", "concept": {}, "pictures": "abc"}', "missing 2 required"),
        ("[" * 100_000, "recursion"),
        ("\udcff", "decode"),
    ],
)
def test_a_concept_json_of_another_shape_is_refused(text, found, written):
    (written / "concept.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadUpload, match=rf"concept.json': expected line, concept and .*{found}"):
        read_upload(written)


def test_a_huge_concept_json_is_refused_unread(written):
    with open(written / "concept.json", "wb") as file:
        file.truncate(1_000_001)
    with pytest.raises(BadUpload, match=r"concept.json': expected at most 1,000,000 bytes"):
        read_upload(written)


def test_names_inside_concept_json_are_checked(written):
    edited(written, line="../pets", concept={"name": "Mi/lo", "class_noun": "<>"})
    with pytest.raises(BadUpload) as caught:
        read_upload(written)
    assert len(caught.value.problems) == 3


def test_every_listed_picture_that_is_not_as_written_is_named(tmp_path, written):
    torn = bytearray((written / "00.jpg").read_bytes())
    torn[100] ^= 1
    (written / "00.jpg").write_bytes(torn)
    (written / "01.png").unlink()
    (tmp_path / "same.webp").write_bytes((written / "02.webp").read_bytes())
    (written / "02.webp").unlink()
    (written / "02.webp").symlink_to(tmp_path / "same.webp")
    (written / "03.png").write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        read_upload(written)
    reasons = {p.split("'")[1]: p.split("found ")[1].split(";")[0] for p in caught.value.problems}
    assert reasons == {
        "00.jpg": "other bytes than its sha256 says",
        "01.png": "no such file",
        "02.webp": "a link or a folder",
        "03.png": "a file that is not listed",
    }


@pytest.mark.parametrize("name", ["../secret.png", "sub/a.png", "..", "", "/etc/passwd", "a\\b"])
def test_a_listed_path_out_of_the_folder_is_refused(name, tmp_path, written):
    secret = tmp_path / "secret.png"
    scene(9).save(secret)
    listed = json.loads((written / "concept.json").read_text())["pictures"]
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    edited(written, pictures=[*listed, {"name": name, "sha256": digest}])
    with pytest.raises(BadUpload, match=r"inside the folder, found a path that leads out of"):
        read_upload(written)


@pytest.mark.parametrize("name", [".hidden.png", "concept.json", "a\x00b", "x" * 300])
def test_a_listed_name_that_is_no_picture_of_the_upload_is_refused(name, written):
    listed = json.loads((written / "concept.json").read_text())["pictures"]
    edited(written, pictures=[*listed, {"name": name, "sha256": "0" * 64}])
    with pytest.raises(BadUpload, match=r"found no such file; submit"):
        read_upload(written)


def test_a_name_that_is_listed_twice_or_an_empty_list_is_refused(written):
    listed = json.loads((written / "concept.json").read_text())["pictures"]
    edited(written, pictures=[*listed, listed[0]])
    with pytest.raises(BadUpload, match=r"'00.jpg' of .*found a name that is listed twice"):
        read_upload(written)
    edited(written, pictures=[])
    with pytest.raises(BadUpload, match=r"found an empty list"):
        read_upload(written)


def test_an_upload_in_the_inbox_can_be_checked_again(written):
    """Intake does: what lies in the inbox need not have come through submit."""
    assert problems(written) == ()
