import pytest

from l2dm.uploads.check import submit
from tests.worlds.uploads import MILO, SPEC, pictures


@pytest.fixture
def folder(tmp_path):
    return pictures(tmp_path / "mine")


@pytest.fixture
def box(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def place(folder, box):
    submit(folder, box, "pets", MILO, SPEC, {})
    return box / "pets" / "milo"
