import inspect
import re

import pytest

from l2dm import errors


def test_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = {}
    parents = {}
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"([│ ]*)(?:[├└]── )?([A-Z]\w+)( {2,}.*)?", line)
        if match:
            depth = (len(match[1]) + 4) // 4 if "── " in line else 0
            parents[depth] = match[2]
            drawn[match[2]] = parents[depth - 1] if depth else "Exception"
    written = {
        name: kind.__base__.__name__
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert drawn == written
    assert len(written) == 27  # "all" is only worth something when it is counted


def test_one_problem_is_the_message():
    assert str(errors.BadSpec("expected a, found b")) == "expected a, found b"
    assert errors.BadSpec("expected a, found b").problems == ("expected a, found b",)


def test_several_problems_are_a_list():
    with pytest.raises(errors.BadInput, match=r"\n  - first\n  - second") as caught:
        raise errors.BadUpload(["first", "second"])
    assert caught.value.problems == ("first", "second")
