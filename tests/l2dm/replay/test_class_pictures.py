"""What the bare base draws of class nouns: which nouns, which prompts and seeds, and its cache."""

from pathlib import Path

import pytest
import torch

from l2dm import doors
from l2dm.bases.model import Model, load_base
from l2dm.files import manifest
from l2dm.files.door_files import ClassPictures
from l2dm.replay import class_pictures
from l2dm.spec import SamplingSpec
from tests.worlds.six_steps import TOM

SAMPLING = SamplingSpec(steps=2, batch=2)


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Model:
    return load_base(str(tiny_base))


def test_nouns_are_bounded_and_the_new_one_comes_first() -> None:
    past = [doors.Concept(f"c{i}", noun) for i, noun in enumerate(["dog", "cat", "dog", "car"])]
    assert class_pictures.nouns_for(TOM, past, 10) == ("cat", "car", "dog")
    assert class_pictures.nouns_for(TOM, past, 2) == ("cat", "car")


def test_every_noun_has_the_same_seeds_and_templates() -> None:
    assert class_pictures.seeds(3, 5)[:3] == class_pictures.seeds(3, 3)
    assert class_pictures.seeds(3, 3) != class_pictures.seeds(4, 3)
    dogs, cups = (class_pictures.captions(noun, 4) for noun in ("dog", "coffee cup"))
    assert tuple(caption.replace("dog", "coffee cup") for caption in dogs) == cups


def test_the_cache_holds_a_door_for_each_noun_and_count(model: Model, tmp_path: Path) -> None:
    told: list[int] = []

    def drawn(noun: str, count: int) -> ClassPictures:
        return class_pictures.generate(
            model, noun, count, SAMPLING, seed=0, cache=tmp_path,
            on_progress=lambda done, _: told.append(done),
        )  # fmt: skip

    first = drawn("dog", 3)
    assert (len(first.latents), len(first.pictures), told) == (3, 3, [2, 3])
    again = drawn("dog", 3)
    assert told == [2, 3]  # nothing was drawn
    assert torch.equal(again.latents, first.latents)
    assert torch.equal(again.pictures, first.pictures)
    drawn("dog", 2)
    drawn("cat", 3)
    records = [manifest.read(one, doors.Prior).record for one in tmp_path.iterdir()]
    assert sorted((one.nouns, len(one.seeds)) for one in records) == [
        (("cat",), 3), (("dog",), 2), (("dog",), 3)
    ]  # fmt: skip


def test_what_the_cache_lost_is_drawn_again(model: Model, tmp_path: Path) -> None:
    def drawn() -> ClassPictures:
        return class_pictures.generate(model, "dog", 2, SAMPLING, seed=0, cache=tmp_path)

    first = drawn()
    (folder,) = tmp_path.iterdir()
    (folder / "latents.safetensors").write_bytes(b"torn")
    assert torch.equal(drawn().latents, first.latents)
    assert manifest.read(folder, doors.Prior).record.nouns == ("dog",)
