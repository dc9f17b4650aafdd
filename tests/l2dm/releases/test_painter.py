"""A release opened for drawing: its files are verified, and no more often than there are doors."""

from collections import Counter
from pathlib import Path

import pytest

from l2dm.errors import BadDoor
from l2dm.files import manifest
from l2dm.releases.painter import open_release
from tests.worlds.handmade import make_release


@pytest.fixture
def release(tmp_path: Path, tiny_base: Path) -> Path:
    return make_release(tmp_path / "release", str(tiny_base), "lowrank")


def test_weights_are_read_for_the_release_and_for_the_adapter(
    release: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[Path]()
    hashed = manifest.sha256_of

    def counting(path: Path) -> str:
        read[path] += 1
        return hashed(path)

    monkeypatch.setattr(manifest, "sha256_of", counting)
    painter = open_release(release, str(tiny_base))
    assert [concept.name for concept in painter.concepts] == ["toy", "toy2"]
    assert painter.model.adapter.__class__.__name__ == "LowRank"
    assert set(read.values()) == {1, 2}
    assert {path for path, count in read.items() if count == 2} == {
        *(release / "adapter").iterdir()
    }


def test_a_changed_release_is_refused(release: Path, tiny_base: Path) -> None:
    path = next((release / "scores").glob("*.json*"))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BadDoor, match=path.name):
        open_release(release, str(tiny_base))
