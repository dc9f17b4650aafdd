import json

import pytest

from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.uploads.captions import prompts
from l2dm.uploads.folder import read_upload, write_upload
from tests.worlds.uploads import MILO, SPEC, problems

TOY = Concept("rex", "toy car")


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("a <rex> toy car in snow", "a <rex> toy car in snow"),
        ("<rex> asleep", "<rex> asleep"),
        ("a photo of {} on a table", "a photo of <rex> toy car on a table"),
        ("a Toy Car on a table, a toy car", "a <rex> toy car on a table, a toy car"),
        ("on a table", "a picture of a <rex> toy car, on a table"),
        ("toy carts", "a picture of a <rex> toy car, toy carts"),
        ("", "a picture of a <rex> toy car"),
        ("50% {off} {0}", "a picture of a <rex> toy car, 50% {off} {0}"),
    ],
)
def test_a_caption_is_the_prompt_where_it_names_the_thing_and_follows_one_elsewhere(
    caption, prompt
):
    assert prompts(["", caption], ["a {}", "a picture of a {}"], TOY) == ("a <rex> toy car", prompt)


def test_captions_beside_pictures_are_kept_with_them(folder, place):
    (folder / "p00.txt").write_bytes("\ufeffa dog  on\r\ngrass\n".encode())
    (folder / "p01.caption").write_text("at night")
    (folder / "p02.webp.txt").write_text("<milo> in a box")
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    said = [picture.caption for picture in upload.pictures]
    assert said == ["a dog on grass", "at night", "<milo> in a box"]
    assert read_upload(place) == upload
    assert sorted(path.name for path in place.iterdir()) == [
        "00.jpg",
        "01.png",
        "02.webp",
        "concept.json",
    ]


def test_brackets_that_name_nothing_are_text(folder, place):
    text = "a <milo> dog <3, box -> bed, 5 > 3, dog > cat, small < large"
    (folder / "p01.txt").write_text(text)
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    assert upload.pictures[1].caption == text


def test_a_caption_of_half_a_placeholder_that_was_accepted_before_stays_one(written):
    data = json.loads((written / "concept.json").read_text())
    data["pictures"][0]["caption"] = "a <milo dog"
    (written / "concept.json").write_text(json.dumps(data))
    assert read_upload(written).pictures[0].caption == "a <milo dog"


def test_pictures_without_captions_leave_no_word_of_them(written):
    listed = json.loads((written / "concept.json").read_text())["pictures"]
    assert all(set(one) == {"name", "sha256"} for one in listed)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"a <rex> dog", "'<rex>', which is not the placeholder '<milo>'"),
        (b"a <Milo> dog", "'<Milo>', which is not"),
        (b"a < milo > dog", "'< milo >', which is not the placeholder '<milo>'"),
        (b"a <<milo>> dog", "'<<milo>>', which is not"),
        (b"a <milo dog", "'<milo', which is not"),
        (b"a milo> dog", "'milo>', which is not"),
        (b"a Milo > dog", "'Milo >', which is not"),
        (b"a < milo dog", "'< milo', which is not"),
        (b"a <rex dog", "'<rex', which is not"),
        (b"a dog\x1b[2J", "control characters"),
        (b"\xff\xfe\x00", "another encoding than UTF-8"),
        (b"dog " * 130, "519 characters"),
        (b"dog " * 2000, "more than 4,000 bytes"),
    ],
)
def test_a_caption_that_cannot_be_a_prompt_is_refused(text, found, folder, place):
    (folder / "p01.txt").write_bytes(text)
    with pytest.raises(BadUpload) as caught:
        write_upload(place, folder, "pets", MILO, SPEC, {})
    (problem,) = caught.value.problems
    assert problem.startswith("caption 'p01.txt': expected") and found in problem
    assert not place.exists()


def test_a_hostile_caption_in_a_concept_json_is_refused(written):
    path = written / "concept.json"
    data = json.loads(path.read_text())
    data["pictures"][0]["caption"] = "a <rex> dog"
    path.write_text(json.dumps(data))
    with pytest.raises(BadUpload, match=r"caption '00.jpg': expected .* found '<rex>'"):
        read_upload(written)


def test_two_captions_of_one_picture_and_one_of_none_are_refused(folder):
    for name in ("p00.txt", "p00.caption", "other.txt"):
        (folder / name).write_text("a dog")
    two, none = sorted(problems(folder), reverse=True)
    assert "'p00.txt': expected one caption for picture 'p00.jpg', found 'p00.caption'" in two
    assert "'other.txt': expected the caption of a picture" in none


def test_side_files_of_phones_and_albums_are_named_as_ignored(folder, place):
    names = ["p00.AAE", "p00.MOV", "p00.xmp", "p00.jpg.json", "p00.jpg.supplemental-metadata.json"]
    for name in names:
        (folder / name).write_bytes(b"x")
    told: list[str] = []
    upload = write_upload(place, folder, "pets", MILO, SPEC, {}, remark=told.append)
    assert len(upload.pictures) == 3
    assert len(told) == 1 and told[0].startswith("ignored, since they are no pictures: ")
    assert all(name in told[0] for name in names)
