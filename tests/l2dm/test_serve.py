"""What a registered version calls: what it cannot serve is refused by name."""

import json
from pathlib import Path

import pytest

from l2dm.errors import BadBase, BadDoor, BadPrompt
from l2dm.serve import open_release
from l2dm.steps import empty_release


@pytest.fixture
def release(tmp_path: Path, tiny_base: Path) -> Path:
    return empty_release(tmp_path / "release", "pets", str(tiny_base)).folder


def test_a_prompt_and_a_seed_are_one_png(release: Path, tiny_base: Path) -> None:
    served = open_release(str(release), str(tiny_base))
    first = served.png("a photo of a dog", seed=3, steps=2)
    assert first.startswith(b"\x89PNG")
    assert first == served.png("a photo of a dog", seed=3, steps=2)
    assert first != served.png("a photo of a dog", seed=4, steps=2)
    with pytest.raises(BadPrompt, match="rex"):
        served.png("a photo of <rex>")


@pytest.mark.parametrize("number", [0, 99])
def test_a_release_of_another_format_is_refused_by_name(
    release: Path, tiny_base: Path, number: int
) -> None:
    path = release / "manifest.json"
    content = json.loads(path.read_text()) | {"format": number}
    path.write_text(json.dumps(content, sort_keys=True, indent=1))
    with pytest.raises(BadDoor, match=rf"Release.*format {number}\b"):
        open_release(release, str(tiny_base))


def test_a_base_that_nothing_installed_can_fetch_is_refused(release: Path) -> None:
    with pytest.raises(BadBase, match=r"fetches gs://, found none; install .* from its checkout"):
        open_release(release, "gs://bucket/base")
