"""Whatever people call their things, MLflow takes the names that are made of it."""

import itertools
import os

import pytest

from components.services.tracking import names

NOUNS = (
    *("child's toy", "T-shirt (red)", "toy, blue", "50% wool hat", "cat & dog", "C++ book", "hat!"),
    *("\U0001f9f8 bear", "\U0001f469\u200d\U0001f680 doll", "ñandú", "e\u0301te\u0301", "犬の置物"),
    *("a;b", "a:b", 'a"b', "a`b", "a$b", "a#b?c", "..", ".", "a..b", "..a", "a.", "dog\u200d"),
    *("x" * 300, "\U0001f9f8" * 60, "犬" * 200, "\ud800 half"),
)


def taken(name: str) -> None:
    """As MLflow itself checks it, and as a file system takes it."""
    from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

    _validate_metric_name(name)
    _validate_param(name, "value")
    _validate_tag(name, "value")


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_makes_a_name_that_mlflow_takes(noun: str) -> None:
    for name in (noun, f"drift/{noun}/distance", f"{noun}/x"):
        taken(names.key(name))
    file = names.file(f"class-{noun}.png")
    assert file.endswith(".png") and len(file.encode("utf-8", "replace")) <= 200
    assert not set(file) & set("%#?&/\\'\"") and os.path.basename(file) == file


def test_two_nouns_never_share_a_name() -> None:
    alike = (*NOUNS, "child_s toy", "childs toy", "T-shirt _red_", "x" * 301, "toy; blue")
    keys = [names.key(f"drift/{noun}/distance") for noun in alike]
    files = [names.file(f"class-{noun}.png") for noun in alike]
    for found in (keys, files):
        assert not [pair for pair in itertools.combinations(found, 2) if pair[0] == pair[1]]


@pytest.mark.parametrize(
    "name", ["train/loss", "eval/rex/identity_similarity", "drift/teddy_bear/distance", "été/ñ 1.5"]
)
def test_a_name_that_mlflow_takes_stays_as_it_is(name: str) -> None:
    assert names.key(name) == name
    assert names.file("class-dog.png") == "class-dog.png"


def test_values_are_cut_where_mlflow_would_refuse_them() -> None:
    assert len(names.param("x" * 9000)) == 6000 and names.param("x" * 9000).endswith("…")
    assert len(names.tag("x" * 9000)) == 5000
    assert names.param(0.5) == "0.5" and names.tag("rex") == "rex"
