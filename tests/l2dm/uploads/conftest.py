from pathlib import Path

import pytest

from l2dm.uploads.folder import write_upload
from tests.worlds.uploads import MILO, SPEC, pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of somebody's."""
    return pictures(tmp_path / "mine")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where an upload will be."""
    return tmp_path / "uploads" / "milo"


@pytest.fixture
def written(folder: Path, place: Path) -> Path:
    """An upload."""
    write_upload(place, folder, "pets", MILO, SPEC, {})
    return place
