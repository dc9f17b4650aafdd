import random

import pytest

from l2dm.doors import Concept
from l2dm.uploads.check import slug_problem, suggest_slug
from tests.worlds.uploads import problems


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
        assert slug_problem("name", suggest_slug(name)) is None


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
