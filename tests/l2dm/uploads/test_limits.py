"""What was accepted under one limit is not refused under another, within what anybody may ask."""

import json

import pytest

from l2dm.errors import BadUpload
from l2dm.files.concept_json import CEILINGS, accepted_under, at_most, limits_in
from l2dm.spec import IntakeSpec
from l2dm.uploads.check import task_pictures
from l2dm.uploads.folder import read_upload, write_upload
from tests.worlds.uploads import MILO, SPEC, pictures, scene


def test_an_upload_carries_the_limits_that_it_was_accepted_under(tmp_path, place):
    generous = IntakeSpec(max_pictures=25, min_side=20)
    folder = pictures(tmp_path / "mine", 24)
    scene(99, (40, 40)).save(folder / "small.png")
    upload = write_upload(place, folder, "pets", MILO, generous, {})
    assert upload.limits == generous.model_dump()
    found = read_upload(place)
    limits = accepted_under(found.limits, SPEC)
    assert task_pictures(place, found, 32, limits, {}, line="pets").pixels.shape[0] == 25
    with pytest.raises(BadUpload):
        task_pictures(place, found, 32, SPEC, {}, line="pets")


def test_an_upload_that_was_accepted_under_a_former_name_of_a_limit_is_read(written):
    path = written / "concept.json"
    data = json.loads(path.read_text())
    limits = IntakeSpec(min_side=20).model_dump()
    del limits["copy_levels"]
    path.write_text(json.dumps(data | {"limits": limits | {"near_duplicate_bits": 6}}))
    asked = IntakeSpec(min_side=20, copy_levels=34)
    assert accepted_under(read_upload(written).limits, IntakeSpec(copy_levels=200)) == asked
    assert limits_in(path.read_bytes(), SPEC) == asked


def test_an_upload_without_limits_is_asked_for_the_houses():
    house = IntakeSpec(max_pictures=7)
    assert accepted_under({}, house) == house
    assert limits_in(b"{}", house) == limits_in(b"no json", house) == house


def test_no_upload_lifts_a_limit_beyond_the_ceiling():
    found = accepted_under(dict.fromkeys(CEILINGS, 10**15), SPEC)
    assert {key: getattr(found, key) for key in CEILINGS} == CEILINGS
    assert at_most(IntakeSpec(max_pictures=1000)).max_pictures == CEILINGS["max_pictures"]


@pytest.mark.parametrize("limits", [{"max_bytes": -1}, {"min_pictures": 0}])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(BadUpload, match=r"concept.json: expected limits"):
        accepted_under(limits, SPEC)


def test_a_concept_json_with_limits_that_are_no_numbers_is_refused(written):
    path = written / "concept.json"
    data = json.loads(path.read_text()) | {"limits": {"max_bytes": "many"}}
    path.write_text(json.dumps(data))
    with pytest.raises(BadUpload, match=r"expected line, concept and pictures"):
        read_upload(written)
    assert limits_in(path.read_bytes(), SPEC) == SPEC


def test_pictures_far_smaller_than_the_base_draws_are_refused(tmp_path, place):
    folder = pictures(tmp_path / "mine")  # 96 x 64
    with pytest.raises(BadUpload, match=r"at least 256 pixels .* draws 512 x 512, found 96 x 64"):
        write_upload(place, folder, "pets", MILO, SPEC, {}, resolution=512)
    lower = IntakeSpec(min_share=0.1)
    write_upload(place, folder, "pets", MILO, lower, {}, resolution=512)


def test_pictures_of_one_colour_are_refused_each_by_its_own_sentence(tmp_path, place):
    from PIL import Image

    folder = pictures(tmp_path / "mine")
    Image.new("RGB", (64, 64), "white").save(folder / "white.png")
    Image.new("RGB", (64, 64), "white").save(folder / "blank.jpg", quality=60)
    with pytest.raises(BadUpload) as caught:
        write_upload(place, folder, "pets", MILO, SPEC, {})
    assert len(caught.value.problems) == 2
    assert all("found one colour all over" in problem for problem in caught.value.problems)
