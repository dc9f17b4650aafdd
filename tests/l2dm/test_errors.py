import errno
import inspect
import os
import re
import shutil

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
    assert len(written) == 29  # "all" is only worth something when it is counted


def test_one_problem_is_the_message():
    assert str(errors.BadSpec("expected a, found b")) == "expected a, found b"
    assert errors.BadSpec("expected a, found b").problems == ("expected a, found b",)


def test_several_problems_are_a_list():
    with pytest.raises(errors.BadInput, match=r"\n  - first\n  - second") as caught:
        raise errors.BadUpload(["first", "second"])
    assert caught.value.problems == ("first", "second")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "mount the disk that holds it"),
        (errno.EACCES, "let this user read and write there"),
        (errno.EROFS, "mounted to be read only"),
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "too long for the disk: shorten it"),
        (errno.EIO, "does not answer"),
    ],
)
def test_what_the_system_refuses_is_told_as_what_it_is_with_the_path(number, advice):
    told = errors.system_words(OSError(number, os.strerror(number), "/a/path"))
    assert told.startswith(f"{os.strerror(number)} at /a/path: ") and advice in told
    assert "free some space" not in told or number == errno.ENOSPC


def test_a_folder_that_cannot_be_copied_is_told_by_its_first_file(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "one").symlink_to("nowhere")
    (tmp_path / "from" / "two").symlink_to("nowhere")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    told = errors.system_words(caught.value)
    assert re.search(r"No such file or directory.*, copying \S+/from/\w+ to .*\(and 1 more\)", told)


def test_an_error_without_a_number_keeps_its_words():
    assert errors.system_words(OSError("the server hung up")) == "the server hung up"


def test_what_an_error_says_is_in_words_whatever_it_is() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/state/lines")
    assert errors.words(full) == "No space left on device at /state/lines: free some space there"
    assert errors.words(errors.BadDoor("a door")) == "a door"
