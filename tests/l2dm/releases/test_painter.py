"""A release opened for drawing: its files are verified, and no more often than there are doors."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from l2dm.bases.model import load_base
from l2dm.errors import BadDoor, BadPrompt, BadSpec
from l2dm.files import manifest
from l2dm.releases.painter import Painter, open_release
from l2dm.releases.request import EVERY, Wish, plan
from l2dm.spec import SamplingSpec
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


SHORT = SamplingSpec(steps=2)


def drawn(painter: Painter, *wishes: Wish, batch: int = 1) -> torch.Tensor:
    return torch.stack(list(painter.draw(plan(wishes, painter.concepts), SHORT, batch)))


@pytest.fixture(scope="module", params=["lowrank", "spectral", "prompt"])
def knows(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Painter:
    folder = tmp_path_factory.mktemp(request.param)
    return open_release(make_release(folder / "r", str(tiny_base), request.param), str(tiny_base))


@pytest.fixture(scope="module")
def bare(tiny_base: Path) -> Painter:
    return Painter(load_base(str(tiny_base)), ())


def test_a_concept_at_nought_is_the_base_bit_for_bit(knows: Painter, bare: Painter) -> None:
    named = "a photo of a <toy> dog"
    base = drawn(bare, Wish("a photo of a dog", 3))
    learned = drawn(knows, Wish(named, 3))
    assert torch.equal(drawn(knows, Wish(named, 3, strengths={"toy": 0.0})), base)
    assert torch.equal(drawn(knows, Wish(named, 3, strengths={EVERY: 0.0})), base)
    assert torch.equal(drawn(knows, Wish(named, 3, strengths={"toy": 1.0})), learned)
    half = drawn(knows, Wish(named, 3, strengths={"toy": 0.5}))
    assert not torch.equal(half, learned)
    assert not torch.equal(half, base)
    assert torch.equal(drawn(knows, Wish(named, 3)), learned)  # nothing of a strength is left


def test_a_negative_prompt_draws_another_picture_and_none_changes_none(knows: Painter) -> None:
    plain, led_away, empty = (
        drawn(knows, Wish("a photo of a dog", 3, negative)) for negative in ("", "a cup", "")
    )
    assert torch.equal(plain, empty)
    assert not torch.equal(plain, led_away)


def test_wishes_of_several_strengths_are_drawn_in_their_order(knows: Painter) -> None:
    wishes = [
        Wish("a <toy> dog", 1),
        Wish("a <toy> dog", 2),
        Wish("a <toy> dog", 1, strengths={"toy": 0.5}),
        Wish("a cup", 1, negative="red"),
    ]
    alone = [drawn(knows, wish)[0] for wish in wishes]
    assert torch.equal(drawn(knows, *wishes), torch.stack(alone))
    together = drawn(knows, *wishes, batch=4)  # equal up to rounding
    assert (together.int() - torch.stack(alone).int()).abs().max() <= 1


def test_words_that_fall_off_are_told_and_placeholders_are_refused(knows: Painter) -> None:
    long = "a red cup and a blue cup and a red dog and a blue cat in the picture"
    (note,) = knows.notes(plan([Wish(long)], knows.concepts))
    assert note.endswith("what falls off: 'cat in the picture'")
    assert knows.notes(plan([Wish("a <toy> dog", negative="a cup")], knows.concepts)) == []
    with pytest.raises(BadPrompt, match=r"falls off: 'cat of the <toy>', with <toy>; shorten it"):
        knows.notes(plan([Wish(f"{long.removesuffix(' in the picture')} of the <Toy>")],
                         knows.concepts))  # fmt: skip


def test_more_steps_than_the_base_was_trained_with_are_refused(
    bare: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = bare.model.scheduler
    short = type(sampler).from_config(sampler.config, num_train_timesteps=500)
    monkeypatch.setattr(bare.model, "scheduler", short)
    with pytest.raises(BadSpec, match=r"sampling\.steps: expected at most 500.*found 501"):
        bare.paint("a dog", [0], SamplingSpec(steps=501))
