"""What somebody may ask a release to draw: limits, strengths, all problems at once."""

import pytest

from l2dm.doors import Concept
from l2dm.errors import BadPrompt
from l2dm.releases.picture_text import Origin, digest, texts
from l2dm.releases.request import (
    EVERY,
    MAX_PICTURES,
    MAX_SEED,
    DrawPlan,
    Wish,
    plan,
    read_strengths,
    require_used,
)

KNOWN = (Concept("rex", "dog"), Concept("tom", "cat"))
ORIGIN = Origin("pets", 3, "a" * 64, "b" * 16, "DPMSolverMultistepScheduler", 20, 7.5, 64)


def one(wish: Wish) -> DrawPlan:
    return plan([wish], KNOWN)[0]


def test_a_concept_of_strength_nought_is_left_out_of_what_is_read() -> None:
    asked = one(Wish("a <rex> dog and a <tom> cat", negative="<rex>", strengths={"rex": 0.0}))
    assert (asked.prompt, asked.negative) == ("a dog and a <tom> cat", "")
    assert asked.wish.prompt == "a <rex> dog and a <tom> cat"
    assert asked.strengths == {"rex": 0.0, "tom": 1.0}


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t", "\u200b\ufeff", "\u3000"])
def test_a_prompt_that_says_nothing_is_refused(prompt: str) -> None:
    with pytest.raises(BadPrompt, match="expected words that say what to draw, found none"):
        one(Wish(prompt))
    assert one(Wish("a dog", negative="")).notes == ()


def test_nothing_left_of_a_prompt_is_told() -> None:
    asked = one(Wish("<rex>", strengths={"rex": 0.0}))
    assert asked.prompt == ""
    assert "nothing is left of prompt '<rex>'" in " ".join(asked.notes)


def test_a_strength_of_all_holds_for_prompts_that_name_none() -> None:
    assert one(Wish("a dog", strengths={EVERY: 0.5})).strengths == {"rex": 0.5, "tom": 0.5}
    assert one(Wish("a dog", strengths={"rex": 0.5})).strengths == {}
    assert one(Wish("<rex> <tom>", strengths={EVERY: 0.5, "tom": 2})).strengths == {
        "rex": 0.5,
        "tom": 2,
    }


def test_every_problem_of_every_wish_is_listed_once() -> None:
    bad = [Wish("<nobody>", seed=-1), Wish("embedding:x", negative="<Nil>"), Wish("<nobody>")]
    with pytest.raises(BadPrompt) as refused:
        plan([*bad, Wish("a dog", strengths={"mimi": 1.0})], KNOWN)
    assert len(refused.value.problems) == 5
    assert "strength of 'mimi'" in str(refused.value)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 10**5000], ids=["under", "over", "long"])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(BadPrompt, match=f"from 0 to {MAX_SEED}"):
        one(Wish("a dog", seed))


def test_too_many_pictures_are_refused() -> None:
    with pytest.raises(BadPrompt, match="at most 10,000 pictures at once, found 10,001"):
        plan([Wish("a dog")] * (MAX_PICTURES + 1), KNOWN)


def test_strengths_are_read_as_people_write_them() -> None:
    assert read_strengths(["rex=0.7", "<tom>=2", "0.5"]) == {"rex": 0.7, "tom": 2, EVERY: 0.5}
    for text in ("rex", "rex=", "rex=-1", "rex=5", "rex=nan", "rex=inf", "=1", "1e400", "x" * 9999):
        with pytest.raises(BadPrompt, match=r"NAME=NUMBER or NUMBER, from 0"):
            read_strengths([text])
    with pytest.raises(BadPrompt, match="a second time"):
        read_strengths(["rex=1", "rex=2"])


def test_a_strength_that_no_prompt_uses_is_refused() -> None:
    plans = plan([Wish("a dog"), Wish("a <tom> cat")], KNOWN)
    require_used({"tom": 0.5, EVERY: 1.0}, plans)
    with pytest.raises(BadPrompt, match="strength of <rex>: expected a prompt that names it"):
        require_used({"rex": 0.5}, plans)


def test_a_picture_says_how_it_was_made_as_other_readers_expect_it() -> None:
    wish = Wish("a <rex>\ndog\nSteps: 9, Seed: 9, Size: 9x9", 7, "blur", {"rex": 0.7, EVERY: 1.0})
    lines = texts(ORIGIN, one(wish))["parameters"].split("\n")
    assert lines == [
        "a <rex> dog Steps: 9, Seed: 9, Size: 9x9",
        "Negative prompt: blur",
        "Steps: 20, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 7, Size: 64x64, "
        "Model hash: aaaaaaaaaa, Model: pets version 3, Strength: 1 rex=0.7, Version: l2dm 0.1.0",
    ]


def test_a_digest_tells_all_that_was_asked_apart_but_the_seed() -> None:
    wishes = [
        Wish("a dog"),
        Wish("a cat"),
        Wish("a dog", negative="x"),
        Wish("a <rex> dog"),
        Wish("a <rex> dog", strengths={"rex": 0.5}),
    ]
    assert len({digest(ORIGIN, asked) for asked in plan(wishes, KNOWN)}) == len(wishes)
    assert digest(ORIGIN, one(Wish("a dog", 1))) == digest(ORIGIN, one(Wish("a dog", 2)))
