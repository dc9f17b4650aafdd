import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from l2dm import concepts, inbox
from l2dm.concepts import check, read_upload, submit, suggest_slug, task_pictures, waiting
from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.spec import IntakeSpec

SPEC = IntakeSpec()
MILO = Concept("milo", "dog")


def scene(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    rng = random.Random(seed)
    picture = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(30):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        ink = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((x, y, x + size[0] // 4, y + size[1] // 4), fill=ink)
    return picture


def pictures(folder: Path, n: int = 3, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        scene(first + i).save(folder / f"p{i:02d}.{('jpg', 'png', 'webp')[i % 3]}")
    return folder


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "mine")


@pytest.fixture
def box(tmp_path):
    return tmp_path / "inbox"


def problems(folder, line="pets", concept=MILO, taken=None, vocabulary=None):
    return check(folder, line, concept, SPEC, taken or {}, vocabulary)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Pictures ----------------------------------------------------------------------------------------


def test_a_good_upload_has_no_problems(folder):
    assert problems(folder) == ()


def test_every_problem_is_listed_at_once_and_nothing_is_written(tmp_path, box):
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
        submit(folder, box, "My Pets", concept, SPEC, {})
    assert caught.value.problems == found
    assert not box.exists()


@pytest.mark.parametrize(
    ("n", "message"),
    [
        (0, "expected 3 to 20 pictures, found 0 in .*; add some"),
        (2, "expected 3 to 20 pictures, found 2 in .*; add some"),
        (21, "expected 3 to 20 pictures, found 21 in .*; keep the best"),
    ],
)
def test_too_few_or_too_many_pictures(n, message, tmp_path, box):
    with pytest.raises(BadUpload, match=message):
        submit(pictures(tmp_path / "mine", n), box, "pets", MILO, SPEC, {})
    assert not box.exists()


def test_three_and_twenty_pictures_are_accepted(tmp_path, box):
    for n in (3, 20):
        concept = Concept(f"milo{n}", "dog")
        upload = submit(pictures(tmp_path / str(n), n), box, "pets", concept, SPEC, {})
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


def test_what_systems_leave_behind_is_ignored(folder, box):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._p00.jpg", "concept.json"):
        (folder / name).write_bytes(b"x")
    for name in (".git", "__MACOSX"):
        (folder / name).mkdir()
    assert problems(folder) == ()
    assert len(submit(folder, box, "pets", MILO, SPEC, {}).pictures) == 3


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


def test_unicode_and_odd_names_are_stored_under_safe_names(tmp_path, box):
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
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    stored = [picture.name for picture in upload.pictures]
    assert sorted(stored) == stored
    assert all(name.isascii() and name[:2].isdigit() for name in stored)
    assert {(box / "pets/milo" / name).read_bytes() for name in stored} >= set(contents.values())


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("", "my-concept"),
        ("Milo", "milo"),
        ("Käthe & Söhne", "kathe-sohne"),
        ("3po", "c-3po"),
        ("../../etc/passwd", "etc-passwd"),
        ("/etc", "etc"),
        ("mi\x00lo", "mi-lo"),
        ("milo\n", "milo"),
        ("milo ", "milo"),
        ("猫", "my-concept"),
        ("_milo", "milo"),
        ("a" * 41, "a" * 40),
        ("<milo>", "milo"),
        ("Class-dog", "dog"),
    ],
)
def test_a_name_that_is_no_slug_is_refused_with_one_that_is(name, suggestion, folder):
    assert suggest_slug(name) == suggestion
    for found in (problems(folder, concept=Concept(name, "dog")), problems(folder, line=name)):
        assert len(found) == 1
        assert found[0].endswith(f"a letter first; try {suggestion!r}")
    assert problems(folder, concept=Concept(suggestion, "dog")) == ()


@pytest.mark.parametrize("name", ["a", "a" * 40, "milo-2_b", "m3"])
def test_slugs_are_accepted(name, folder):
    assert problems(folder, name, Concept(name, "dog")) == ()


def test_every_suggestion_is_a_slug():
    rng = random.Random(0)
    letters = "aZ0-_ .é猫<\n/ſﬁİ"
    for _ in range(2000):
        name = "".join(rng.choices(letters, k=rng.randrange(60)))
        assert concepts.slug_problem("name", suggest_slug(name)) is None


def test_a_name_for_class_sheets_is_refused(folder):
    (problem,) = problems(folder, concept=Concept("class-dog", "dog"))
    assert "names that begin with 'class-' are kept" in problem
    assert problem.endswith("try 'dog'")


def test_a_name_that_is_taken_is_refused_with_the_reason(folder):
    (problem,) = problems(folder, taken={"milo": "learned by task t0001"})
    assert problem == (
        "concept name 'milo': expected one that is new in line 'pets', found it taken "
        "(learned by task t0001); choose another name"
    )
    assert problems(folder, taken={"milo2": "learned"}) == ()


@pytest.mark.parametrize("vocabulary", [{"<milo>": 1}, {"<milo></w>": 1}])
def test_a_placeholder_of_the_vocabulary_is_refused(vocabulary, folder):
    (problem,) = problems(folder, vocabulary=vocabulary)
    assert "new to the tokenizer, found '<milo>' in its vocabulary; choose another name" in problem
    assert problems(folder, vocabulary={"milo": 1, "milo</w>": 2}) == ()


@pytest.mark.parametrize(
    ("noun", "found"),
    [
        ("", "no letter in it"),
        ("  ", "no letter in it"),
        ("42", "no letter in it"),
        ("dog\n", "control characters"),
        ("d\x00og", "control characters"),
        (" dog", "spaces around it"),
        ("d" * 41, "41 characters"),
        ("<milo> dog", "one of < > / "),
        ("../dog", "one of < > / "),
        ("a\\b", "one of < > / "),
        ("d\u200bog", "control characters"),
        ("\ud800dog", "control characters"),
    ],
)
def test_a_bad_class_noun_is_refused(noun, found, folder):
    (problem,) = problems(folder, concept=Concept("milo", noun))
    assert f"class noun {noun!r}: expected what the thing is" in problem
    assert found in problem


@pytest.mark.parametrize("noun", ["dog", "toy car", "Schäferhund", "猫", "jack-o'-lantern"])
def test_nouns_that_a_tokenizer_splits_are_accepted(noun, folder):
    assert problems(folder, concept=Concept("milo", noun)) == ()


# Submitting --------------------------------------------------------------------------------------


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
    assert concepts.lines(box) == ()
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
    assert concepts.lines(box) == ("cars", "pets")
    # zoe and milo in the same second: by name
    assert [path.name for path in waiting(box, "pets")] == ["milo", "zoe", "anton"]
    assert waiting(box, "cars") == []


# Reading -----------------------------------------------------------------------------------------


@pytest.fixture
def place(folder, box):
    submit(folder, box, "pets", MILO, SPEC, {})
    return box / "pets" / "milo"


def edited(place: Path, **changes) -> None:
    path = place / inbox.FILE
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
def test_a_concept_json_of_another_shape_is_refused(text, found, place):
    (place / "concept.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadUpload, match=rf"concept.json': expected line, concept and .*{found}"):
        read_upload(place)


def test_a_huge_concept_json_is_refused_unread(place):
    with open(place / "concept.json", "wb") as file:
        file.truncate(1_000_001)
    with pytest.raises(BadUpload, match=r"concept.json': expected at most 1,000,000 bytes"):
        read_upload(place)


def test_names_inside_concept_json_are_checked(place):
    edited(place, line="../pets", concept={"name": "Mi/lo", "class_noun": "<>"})
    with pytest.raises(BadUpload) as caught:
        read_upload(place)
    assert len(caught.value.problems) == 3


def test_every_listed_picture_that_is_not_as_written_is_named(tmp_path, place):
    torn = bytearray((place / "00.jpg").read_bytes())
    torn[100] ^= 1
    (place / "00.jpg").write_bytes(torn)
    (place / "01.png").unlink()
    (tmp_path / "same.webp").write_bytes((place / "02.webp").read_bytes())
    (place / "02.webp").unlink()
    (place / "02.webp").symlink_to(tmp_path / "same.webp")
    (place / "03.png").write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        read_upload(place)
    reasons = {p.split("'")[1]: p.split("found ")[1].split(";")[0] for p in caught.value.problems}
    assert reasons == {
        "00.jpg": "other bytes than its sha256 says",
        "01.png": "no such file",
        "02.webp": "a link or a folder",
        "03.png": "a file that is not listed",
    }


@pytest.mark.parametrize("name", ["../secret.png", "sub/a.png", "..", "", "/etc/passwd", "a\\b"])
def test_a_listed_path_out_of_the_folder_is_refused(name, tmp_path, place):
    secret = tmp_path / "secret.png"
    scene(9).save(secret)
    listed = json.loads((place / "concept.json").read_text())["pictures"]
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    edited(place, pictures=[*listed, {"name": name, "sha256": digest}])
    with pytest.raises(BadUpload, match=r"inside the folder, found a path that leads out of"):
        read_upload(place)


@pytest.mark.parametrize("name", [".hidden.png", "concept.json", "a\x00b", "x" * 300])
def test_a_listed_name_that_is_no_picture_of_the_upload_is_refused(name, place):
    listed = json.loads((place / "concept.json").read_text())["pictures"]
    edited(place, pictures=[*listed, {"name": name, "sha256": "0" * 64}])
    with pytest.raises(BadUpload, match=r"found no such file; submit"):
        read_upload(place)


def test_a_name_that_is_listed_twice_or_an_empty_list_is_refused(place):
    listed = json.loads((place / "concept.json").read_text())["pictures"]
    edited(place, pictures=[*listed, listed[0]])
    with pytest.raises(BadUpload, match=r"'00.jpg' of .*found a name that is listed twice"):
        read_upload(place)
    edited(place, pictures=[])
    with pytest.raises(BadUpload, match=r"found an empty list"):
        read_upload(place)


def test_an_upload_in_the_inbox_can_be_checked_again(place):
    """Intake does: what lies in the inbox need not have come through submit."""
    assert problems(place) == ()


# Pictures of a task ------------------------------------------------------------------------------


def test_task_pictures_are_centred_squares(tmp_path, box):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, ink in enumerate(("red", "lime", "blue")):
        picture = scene(i, (192, 64))
        picture.paste(ink, (64, 0, 128, 64))  # the middle third is the square
        picture.save(folder / f"{i}.png")
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    stacked = task_pictures(box / "pets/milo", upload, 32, SPEC)
    assert stacked.shape == (3, 3, 32, 32)
    assert stacked.dtype == torch.uint8
    middle = stacked[:, :, 4:-4, 4:-4]  # the edge mixes with what was cropped away
    for i in range(3):
        assert middle[i].flatten(1).unique(dim=1).flatten().tolist() == [
            255 * (c == i) for c in range(3)
        ]


def test_task_pictures_names_every_picture_that_is_spoiled(place):
    upload = read_upload(place)
    for name in ("00.jpg", "01.png"):
        (place / name).write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        task_pictures(place, upload, 32, SPEC)
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["00.jpg", "01.png"]
