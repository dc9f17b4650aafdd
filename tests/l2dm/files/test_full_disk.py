"""A disk that takes no more, met while tensors are written, is trouble of the disk."""

import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from l2dm.errors import is_of_the_house
from l2dm.files import door_files
from l2dm.files.full_disk import told_as_system

TENSORS = {"a": torch.zeros(100_000)}


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The system takes no file of more than 4 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _opened(tensors: Any, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(tensors, file)


@pytest.mark.parametrize("save", [save_file, _opened])
def test_it_is_told_as_what_the_system_said(
    save: Callable[..., None], tmp_path: Path, small_disk: None
) -> None:
    path = tmp_path / "adapter"
    with pytest.raises(OSError, match="File too large") as caught, told_as_system(path):
        save(TENSORS, path)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert is_of_the_house(type(caught.value).__name__)


def test_a_door_is_written_so(tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(OSError, match="File too large"):
        door_files.write_adapter(tmp_path, TENSORS, {}, {}, {})


def test_what_is_wrong_with_the_tensors_stays_that(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="share memory"), told_as_system(tmp_path):
        save_file({"a": TENSORS["a"], "b": TENSORS["a"]}, tmp_path / "adapter")
