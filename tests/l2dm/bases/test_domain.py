"""A base says what it draws at all; the one that ships says that photographs are nothing to it."""

import shutil
from pathlib import Path

import pytest

from l2dm.bases import folder
from l2dm.bases.domain import FILE, Domain, domain_of
from l2dm.errors import BadBase


def test_the_pocket_base_knows_flat_scenes_only() -> None:
    found = domain_of(folder.locate("pocket"))
    assert found == Domain("flat 64x64 scenes of its own small world", photographs=False)


def test_a_base_that_says_nothing_draws_anything(tmp_path: Path) -> None:
    assert domain_of(tmp_path) is None


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"draws": "", "photographs": true}', '{"draws": "x"}', '{"draws": 1}']
)
def test_a_domain_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(BadBase, match=r"domain\.json"):
        domain_of(tmp_path)


def test_it_takes_no_part_in_the_fingerprint_of_a_base(tmp_path: Path) -> None:
    """Lines that were learned before it was there go on."""
    weights, without = folder.locate("pocket"), tmp_path / "base"
    shutil.copytree(weights, without, ignore=shutil.ignore_patterns(FILE))
    assert folder.fingerprint(without) == folder.fingerprint(weights)
