"""What a registered version calls: what it cannot serve is refused by name."""

import io
import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

from l2dm.errors import BadBase, BadDoor, BadPrompt
from l2dm.serve import Refused, ServedRelease, open_release
from l2dm.steps import empty_release
from tests.worlds.handmade import make_release


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


NUMBERS_OUT_OF_RANGE = [
    ({"steps": 10**9}, "steps"),
    ({"steps": 1001}, "a number from 0 to 1000, found 1001"),
    ({"steps": -1}, "steps"),
    ({"seed": 2**64}, "from 0 to 9223372036854775807"),
    ({"seed": -1}, "from 0 to 9223372036854775807"),
]


@pytest.mark.parametrize(("numbers", "said"), NUMBERS_OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused(
    release: Path, tiny_base: Path, numbers: dict[str, int], said: str
) -> None:
    served = open_release(release, str(tiny_base))
    with pytest.raises(Refused, match=said):
        served.png("a dog", **numbers)
    with pytest.raises(Refused, match=said):
        served.pngs([{"prompt": "a dog"}, {"prompt": "a dog", **numbers}])


@pytest.fixture(scope="module")
def learned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedRelease:
    folder = tmp_path_factory.mktemp("learned") / "release"
    return open_release(make_release(folder, str(tiny_base), "prompt"), str(tiny_base))


def test_each_row_has_its_own_seed_prompt_and_strength(learned: ServedRelease) -> None:
    row = {"prompt": "a <toy> dog", "steps": 1}
    rows = [
        row | {"seed": 1},
        row | {"seed": numpy.int64(2), "count": 2},
        row | {"seed": 1.0, "negative_prompt": "a cup", "guidance": 3},
        row | {"seed": 1, "scale": "toy=0.5"},
        {"prompt": "a dog", "seed": 1, "steps": 1},
        row | {"seed": 1, "scale": "0", "negative_prompt": None, "guidance": float("nan")},
    ]
    pictures = learned.pngs(rows)
    assert len(pictures) == 7
    alone = [picture for one in rows for picture in learned.pngs([one])]
    assert alone == pictures
    shown = [Image.open(io.BytesIO(picture)) for picture in pictures]
    assert shown[5].tobytes() == shown[6].tobytes()
    assert len({picture.tobytes() for picture in shown}) == 6
    text = json.loads(shown[3].info["l2dm"])
    assert (text["seed"], text["negative_prompt"], text["guidance"]) == (1, "a cup", 3.0)
    assert "Seed: 3," in shown[2].info["parameters"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "row 0: prompt: expected a text, found none"),
        ({"prompt": 5}, "prompt: expected a text, found a int"),
        ({"prompt": "a dog", "seed": "1"}, "seed: expected a whole number, found a str"),
        ({"prompt": "a dog", "seed": True}, "seed: expected a whole number, found a bool"),
        ({"prompt": "a dog", "seed": 1.5}, "seed: expected a whole number, found a float"),
        ({"prompt": "a dog", "steps": float("inf")}, "steps: expected a whole number"),
        ({"prompt": "a dog", "guidance": float("inf")}, "guidance: expected a finite number"),
        ({"prompt": "a dog", "count": 0}, "count: expected 1 to 256"),
        ({"prompt": "a dog", "count": 10**30}, "count: expected 1 to 256"),
        ({"prompt": "a dog", "width": 9999}, "expected keys of prompt, .*, found width"),
        ({"prompt": "a dog", "scale": "toy=0.5"}, "expected a prompt that names it"),
        ({"prompt": "a <toy> dog", "scale": "toy=1e9"}, r"from 0 \(not at all\) to 4"),
        ({"prompt": "a <Nobody> dog"}, "which this line has not learned"),
        ({"prompt": "x" * 10_001}, "at most 10,000 characters"),
    ],
)
def test_a_row_that_cannot_be_drawn_is_refused(
    learned: ServedRelease, row: dict[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        learned.pngs([row])


def test_a_call_asks_for_so_many_pictures(learned: ServedRelease) -> None:
    with pytest.raises(Refused, match="at most 256 pictures in one call, found 300"):
        learned.pngs([{"prompt": "a dog", "count": 100}] * 3)
    with pytest.raises(Refused) as refused:
        learned.pngs([{"prompt": ""} | {"seed": "x"}] * 1000)
    assert len(refused.value.problems) == 20


def test_what_a_prompt_may_mean_is_logged(
    learned: ServedRelease, caplog: pytest.LogCaptureFixture
) -> None:
    learned.pngs([{"prompt": "a toy dog", "steps": 1}])
    assert "'toy' in the prompt is read as a plain word" in caplog.text
