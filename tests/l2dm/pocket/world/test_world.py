import hashlib
import os
import random
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from l2dm.pocket.world import scenes
from l2dm.pocket.world.render_cache import LABELS, NOTHING, render, rendered
from l2dm.pocket.world.scenes import (
    COLOURS,
    NAMELESS,
    NOUNS,
    PLACES,
    Scene,
    Thing,
    caption,
    distractors,
    draw,
    draw_with_masks,
    identity,
    photos,
    pixels,
    sample_scene,
)

DIGEST = """
import hashlib
from l2dm.pocket.world.render_cache import render
from l2dm.pocket.world.scenes import identity, photos, pixels
r = render("test", range(8))
p = pixels(photos(identity(110_003, "dog"), 5, 7))
print(hashlib.sha256(r.pictures.tobytes() + repr(r.captions).encode() + p.tobytes()).hexdigest())
"""


def digest_in_new_process(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_same_seed_gives_same_bytes_in_every_process() -> None:
    renders = render("test", range(8))
    pictures = pixels(photos(identity(110_003, "dog"), 5, 7))
    content = renders.pictures.tobytes() + repr(renders.captions).encode() + pictures.tobytes()
    here = hashlib.sha256(content).hexdigest()
    assert digest_in_new_process("1") == digest_in_new_process("2") == here


def test_the_world_imports_no_network_library() -> None:
    probe = (
        "import sys, l2dm.pocket.world.render_cache; "
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_scene_does_not_depend_on_the_others() -> None:
    assert np.array_equal(render("s", [5]).pictures[0], render("s", range(4, 7)).pictures[1])


def test_streams_of_identities_never_meet() -> None:
    streams = [
        scenes.TRAINING_SEEDS,
        scenes.TUNING_SEEDS,
        scenes.TEST_SEEDS,
        scenes.DISTRACTOR_SEEDS,
    ]
    for one, other in combinations(streams, 2):
        assert not set(one) & set(other)


def test_an_identity_always_has_something_no_word_names() -> None:
    for seed in range(200):
        thing = identity(seed, "cat").thing
        assert thing.pattern in NAMELESS or thing.accessory is not None


def test_identities_of_one_noun_differ() -> None:
    things = {identity(seed, "cup").thing for seed in range(200)}
    assert len(things) == 200


def test_photos_vary_and_more_may_be_taken() -> None:
    subject = identity(110_000, "robot")
    few, many = photos(subject, 3, 1), photos(subject, 6, 1)
    assert [p.tobytes() for p in few] == [p.tobytes() for p in many[:3]]
    assert len({p.tobytes() for p in many}) == 6
    assert {p.size for p in many} == {(64, 64)}
    assert photos(subject, 1, 2)[0].tobytes() != many[0].tobytes()


def test_distractors_are_known_strangers() -> None:
    strangers = distractors(100)
    assert strangers[:10] == distractors(10)
    assert {stranger.seed for stranger in strangers} <= set(scenes.DISTRACTOR_SEEDS)
    assert {stranger.noun for stranger in strangers} == set(NOUNS)


def test_a_full_caption_says_everything_language_can() -> None:
    left = Thing("cat", "orange", "blue", "red", pattern="striped")
    right = Thing("hat", "green", "pink", "red")
    text = caption(Scene((left, right), "sea"), random.Random(0), full=True)
    for words in ("orange and blue striped cat", "a green hat", PLACES["sea"]):
        assert words in text
    assert "an orange" in text


@pytest.mark.parametrize("seed", range(5))
def test_loose_captions_leave_out_but_never_lie(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        scene = sample_scene(rng)
        words = caption(scene, rng).split()
        told = {thing.noun for thing in scene.things}
        allowed = {c for thing in scene.things for c in (thing.colour, thing.second)}
        assert told <= set(words)
        assert (set(words) & set(COLOURS)) <= allowed


def test_labels_follow_the_scene_from_left_to_right() -> None:
    renders = render("labels", range(60))
    for row, captions in zip(renders.labels, renders.captions, strict=True):
        values = dict(zip(LABELS, row, strict=True))
        assert NOUNS[values["noun_1"]] in captions[0]
        assert COLOURS[values["colour_1"]] in captions[0]
        two = any(w in captions[0] for w in (" left of ", " right of ")) or (
            sum(captions[0].split().count(noun) for noun in NOUNS) == 2
        )
        assert (values["noun_2"] != NOTHING) == two


def test_masks_cover_the_things_and_nothing_else() -> None:
    things = (Thing("cup", "red", "blue", "green"), Thing("car", "white", "pink", "blue"))
    with_things, masks = draw_with_masks(Scene(things, "road"), random.Random(3))
    assert with_things.tobytes() == draw(Scene(things, "road"), random.Random(3)).tobytes()
    left, right = (np.asarray(mask).astype(float) / 255 for mask in masks)
    assert left[:, :32].sum() > 0.9 * left.sum() and right[:, 32:].sum() > 0.9 * right.sum()
    red = np.asarray(with_things)[..., 0].astype(int) - np.asarray(with_things)[..., 1]
    assert (red[left > 0.99] > 90).mean() > 0.5  # the cup's own colour, where no detail covers it
    assert (red[left + right < 0.01] > 90).mean() == 0


def test_as_many_pairs_as_asked_for() -> None:
    assert (render("pairs", range(30), pairs=1.0).labels[:, 2] != NOTHING).all()
    few = render("pairs", range(30), pairs=0.0)
    assert (few.labels[:, 2] == NOTHING).all()
    assert not few.masks[:, 1].any()
    assert few.masks[:, 0].any((1, 2)).all()


def test_every_noun_is_drawn_large_and_in_its_colour() -> None:
    for noun in NOUNS:
        plain = Thing(noun, "red", "blue", "green")
        picture = np.asarray(draw(Scene((plain,), "snow"), random.Random(1))).astype(int)
        red = (picture[..., 0] > 150) & (picture[..., 1] < 110) & (picture[..., 2] < 110)
        blue = (picture[..., 2] > 150) & (picture[..., 0] < 110) & (picture[..., 1] < 150)
        assert red.mean() > 0.07, noun
        assert red.sum() > blue.sum(), noun


def test_rendered_scenes_are_cached_whole(tmp_path: object) -> None:
    from pathlib import Path

    work = Path(str(tmp_path))
    first = rendered(work, "cache", 20)
    again = rendered(work, "cache", 20)
    alone = render("cache", range(20))
    assert np.array_equal(first.pictures, again.pictures)
    assert np.array_equal(first.pictures, alone.pictures)
    assert first.captions == alone.captions
    assert not list(work.glob("*.partial"))
