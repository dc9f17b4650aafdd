"""The questions that every method answers, put to all of them on the tiny base."""

from pathlib import Path

import pytest

from l2dm.methods import registry
from tests.worlds.method_contract import QUESTIONS, Question


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_every_method(name: str, question: Question, tiny_base: Path, tmp_path: Path) -> None:
    question(name, tiny_base, tmp_path)
