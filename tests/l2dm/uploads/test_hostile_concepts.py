"""Hostile `concept.json` and names: refused in sentences, soon; what is accepted is an upload."""

import time
from pathlib import Path

from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.files.concept_json import (
    CEILINGS,
    FILE,
    MAX_FILES,
    MAX_NOUN,
    SLUG,
    accepted_under,
    limits_in,
)
from l2dm.uploads.check import check_names, suggest_slug
from l2dm.uploads.folder import read_upload
from tests.worlds import hostile_concepts, hostile_text
from tests.worlds.uploads import SPEC

COUNT = 420  # sixty of each rule


def used(folder: Path, seed: int) -> bool:
    """Whether the upload in a folder is one; everything that is done with its text is done."""
    data = (folder / FILE).read_bytes()
    limits_in(data, SPEC)
    try:
        upload = read_upload(folder)
        limits = accepted_under(upload.limits, SPEC)
    except BadUpload as error:
        assert len(error.problems) <= 2 * MAX_FILES, seed
        assert all(len(one) < 800 for one in error.problems), seed
        return False
    assert SLUG.fullmatch(upload.line) and SLUG.fullmatch(upload.concept.name), seed
    assert len(upload.concept.class_noun) <= MAX_NOUN, seed
    assert {one.name for one in upload.pictures} | {FILE} == {p.name for p in folder.iterdir()}
    assert all(getattr(limits, key) <= most for key, most in CEILINGS.items()), seed
    return True


def test_hostile_texts_are_refused_in_sentences(written: Path) -> None:
    good = (written / FILE).read_bytes()
    accepted = 0
    for seed in range(COUNT):
        (written / FILE).write_bytes(hostile_concepts.make(good, seed))
        began = time.process_time()
        try:
            accepted += used(written, seed)
        except Exception as error:
            raise AssertionError(f"{seed}: {type(error).__name__}: {error}") from error
        assert time.process_time() - began < 2, seed
    assert 0 < accepted < COUNT / 3  # words that a noun or a caption may be, limits in range
    (written / FILE).write_bytes(good)
    assert used(written, -1)


def test_hostile_names_are_refused_with_a_slug() -> None:
    for text in hostile_text.texts(400):
        assert SLUG.fullmatch(suggest_slug(text)), text
        for line, concept in ((text, Concept("rex", "dog")), ("pets", Concept(text, "dog"))):
            problems = check_names(line, concept, {})
            assert bool(problems) != bool(SLUG.fullmatch(text)), text
            assert all("try '" in problem for problem in problems), text
        nouns = check_names("pets", Concept("rex", text), {})
        assert not nouns or "class noun" in nouns[0], text
        if any(not letter.isprintable() for letter in text):
            assert nouns, text
