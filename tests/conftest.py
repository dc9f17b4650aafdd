"""Shared fixtures. `tiny_base` is a random Stable Diffusion folder, one for the session."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.base(tmp_path_factory.mktemp("tiny-base"))
