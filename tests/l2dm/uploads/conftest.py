import pytest
from uploads import MILO, SPEC, pictures

from l2dm.uploads.check import submit


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
