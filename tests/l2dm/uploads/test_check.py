import os

import pytest
from PIL import Image

from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.uploads.folder import write_upload
from tests.worlds.uploads import MILO, SPEC, pictures, problems, scene


def test_a_good_upload_has_no_problems(folder):
    assert problems(folder) == ()


def test_every_problem_is_listed_at_once_and_nothing_is_written(tmp_path, place):
    folder = pictures(tmp_path / "mine", 2)
    (folder / "notes.txt").write_text("hello")
    (folder / "sub").mkdir()
    scene(0).save(folder / "again.png")
    scene(5, (40, 40)).save(folder / "small.png")
    whole = (folder / "p00.jpg").read_bytes()
    (folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    concept = Concept("Milo!", "<dog>")
    found = problems(folder, "My Pets", concept)
    for part in ("line 'My Pets'", "'Milo!'", "'<dog>'", "'notes.txt'", "'sub'", "'again.png' and"):
        assert sum(part in problem for problem in found) == 1, part
    assert sum("'small.png'" in problem for problem in found) == 1
    assert sum("'torn.jpg'" in problem for problem in found) == 1
    assert len(found) == 8
    with pytest.raises(BadUpload) as caught:
        write_upload(place, folder, "My Pets", concept, SPEC, {})
    assert caught.value.problems == found
    assert not place.exists()


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (0, "expected 3 to 20 pictures, found 0 in .*; add some"),
        (2, "expected 3 to 20 pictures, found 2 in .*; add some"),
        (21, "expected 3 to 20 pictures, found 21 in .*; keep the best"),
    ],
)
def test_too_few_or_too_many_pictures(n, message, tmp_path, place):
    with pytest.raises(BadUpload, match=message):
        write_upload(place, pictures(tmp_path / "mine", n), "pets", MILO, SPEC, {})
    assert not place.exists()


def test_three_and_twenty_pictures_are_accepted(tmp_path, place):
    for n in (3, 20):
        concept = Concept(f"milo{n}", "dog")
        shown, uploaded = pictures(tmp_path / str(n), n), place.with_name(concept.name)
        upload = write_upload(uploaded, shown, "pets", concept, SPEC, {})
        assert len(upload.pictures) == n


def test_a_folder_of_everything_is_refused_without_decoding_it(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(101):
        (folder / f"{i}.jpg").write_bytes(b"not a picture")
    assert len(problems(folder)) == 1
    assert "found 101" in problems(folder)[0]


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_a_folder_that_is_none_is_refused(what, tmp_path):
    path = tmp_path / "mine"
    if what == "a file":
        path.write_text("x")
    (problem,) = problems(path)
    assert f"expected a folder of pictures, found {what} at" in problem


def test_the_same_picture_re_encoded_or_resized_is_found(folder):
    scene(0).save(folder / "as-png.png")
    scene(1).resize((192, 128), Image.Resampling.LANCZOS).save(folder / "large.jpg", quality=90)
    found = problems(folder)
    assert [("p00.jpg" in problem, "p01.png" in problem) for problem in found] == [
        (True, False),
        (False, True),
    ]
    assert all("found the same one twice; take one out" in problem for problem in found)


def test_what_systems_leave_behind_is_ignored(folder, place):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._p00.jpg", "concept.json"):
        (folder / name).write_bytes(b"x")
    for name in (".git", "__MACOSX"):
        (folder / name).mkdir()
    assert problems(folder) == ()
    assert len(write_upload(place, folder, "pets", MILO, SPEC, {}).pictures) == 3


def test_links_out_of_the_folder_are_refused_and_links_inside_are_not(tmp_path, folder):
    outside = pictures(tmp_path / "outside", 2, first=50)
    (folder / "out.jpg").symlink_to(outside / "p00.jpg")
    (folder / "outfolder").symlink_to(outside)
    (folder / "up.png").symlink_to("../outside/p01.png")
    (folder / "broken.png").symlink_to(folder / "nothing.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")  # opening one would wait forever
    (folder / ".real.jpg").write_bytes((outside / "p00.jpg").read_bytes())
    (folder / "inside.jpg").symlink_to(folder / ".real.jpg")
    found = problems(folder)
    for name in ("out.jpg", "outfolder", "up.png"):
        assert any(f"'{name}': expected picture files only, found a link that" in p for p in found)
    for name in ("broken.png", "circle.png", "pipe.png"):
        assert any(f"'{name}'" in p and "link to nothing or a special file" in p for p in found)
    assert len(found) == 6


def test_the_folder_itself_may_be_a_link(tmp_path, folder):
    (tmp_path / "link").symlink_to(folder)
    assert problems(tmp_path / "link") == ()


def test_unicode_and_odd_names_are_stored_under_safe_names(tmp_path, place):
    folder = tmp_path / "Meine Bilder – 写真"
    folder.mkdir()
    names = ["Größe 1.png", "猫\n.png", "..png..png", "-rf *.png", "noend", "a" * 251 + ".png"]
    names = sorted(name for name in names if not name.startswith("."))
    contents = {}
    for i, name in enumerate(names):
        scene(i).save(folder / name, format="PNG")
        contents[name] = (folder / name).read_bytes()
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(
        pictures(tmp_path / "x", 1, 9).joinpath("p00.jpg").read_bytes()
    )
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    stored = [picture.name for picture in upload.pictures]
    assert sorted(stored) == stored
    assert all(name.isascii() and name[:2].isdigit() for name in stored)
    assert {(place / name).read_bytes() for name in stored} >= set(contents.values())
