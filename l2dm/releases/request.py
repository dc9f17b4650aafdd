"""What somebody asks a release to draw, with limits on all of it. Loads no torch.

The command line and the served model ask the same questions: which concepts are meant, at which
strength, is a number in range. Everything wrong is listed at once, before a model is loaded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from l2dm.bases.prompts import (
    is_empty,
    placeholders_in,
    shortened,
    understand,
    without_placeholders,
)
from l2dm.doors import Concept
from l2dm.errors import BadPrompt

MAX_SEED = 2**63 - 1  # what MLflow's and torch's whole numbers hold
MAX_PICTURES = 10_000  # of one request
MAX_STRENGTH = 4.0
MAX_LISTED = 20  # problems of one request
EVERY = ""  # the name in `strengths` that means all concepts


@dataclass(frozen=True)
class Wish:
    """One picture that somebody wants.

    negative: what it should not show. strengths: by concept, `EVERY` for those not named.
    """

    prompt: str
    seed: int = 0
    negative: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawPlan:
    """A wish as it is drawn.

    prompt, negative: what is read, without the concepts whose strength is 0. strengths: of the
    concepts that the prompts name. wish: with the placeholders spelled as the line spells them.
    notes: what the writer should know.
    """

    wish: Wish
    prompt: str
    negative: str
    strengths: Mapping[str, float]
    notes: tuple[str, ...] = ()


def plan(wishes: Sequence[Wish], concepts: Sequence[Concept]) -> list[DrawPlan]:
    """Wishes as they are drawn by a release that knows these concepts, in order.

    Raises BadPrompt with every problem of all of them.
    """
    if len(wishes) > MAX_PICTURES:
        raise BadPrompt(
            f"expected at most {MAX_PICTURES:,} pictures at once, found {len(wishes):,} asked for; "
            "ask for fewer"
        )
    problems: dict[str, None] = {}
    plans: list[DrawPlan] = []
    for wish in wishes:
        try:
            plans.append(_planned(wish, concepts))
        except BadPrompt as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        listed, more = tuple(problems)[:MAX_LISTED], len(problems) - MAX_LISTED
        raise BadPrompt((*listed, f"and {more:,} more") if more > 0 else listed)
    return plans


def require_used(strengths: Mapping[str, float], plans: Sequence[DrawPlan]) -> None:
    """Raise BadPrompt where a strength is given to a concept that no prompt names."""
    named = {name for one in plans for name in _named(one.wish)}
    idle = [name for name in strengths if name != EVERY and name not in named]
    if idle:
        words = ", ".join(f"<{name}>" for name in idle)
        raise BadPrompt(
            f"strength of {words}: expected a prompt that names it, found none; write {words} "
            "into the prompt, or leave the strength out"
        )


def read_strengths(texts: Sequence[str]) -> dict[str, float]:
    """Strengths as people write them: `rex=0.7` is one concept, `0.7` all. Raises BadPrompt."""
    found: dict[str, float] = {}
    problems = []
    for text in texts:
        name, equals, number = text.rpartition("=")
        name = name.strip().removeprefix("<").removesuffix(">")
        try:
            value = float(number) if len(number) < 40 and (name or not equals) else math.nan
        except ValueError:
            value = math.nan
        if name in found or not 0 <= value <= MAX_STRENGTH:
            problems.append(_bad_strength(text, name in found))
        found[name] = value
    if problems:
        raise BadPrompt(problems)
    return found


def _planned(wish: Wish, concepts: Sequence[Concept]) -> DrawPlan:
    problems = [*_out_of_range(wish, concepts)]
    if is_empty(wish.prompt):
        problems.append(
            f"prompt {shortened(wish.prompt)}: expected words that say what to draw, found none, "
            'and then a base draws anything; write for example "a photo of a dog"'
        )
    understood = []
    for text in (wish.prompt, wish.negative):
        try:
            understood.append(understand(text, concepts))
        except BadPrompt as error:
            problems += error.problems
    if problems:
        raise BadPrompt(problems)
    prompt, negative = understood
    read = replace(wish, prompt=prompt.prompt, negative=negative.prompt)
    strengths = _strengths(read, concepts)
    absent = {name for name, value in strengths.items() if value == 0}
    drawn = [without_placeholders(text, absent) if absent else text
             for text in (read.prompt, read.negative)]  # fmt: skip
    notes = [*prompt.notes, *(f"negative prompt: {note}" for note in negative.notes)]
    if is_empty(drawn[0]):
        notes.append(
            f"nothing is left of prompt {shortened(read.prompt)} without the concepts of strength "
            "0, so the base draws anything"
        )
    return DrawPlan(read, drawn[0], drawn[1], strengths, tuple(notes))


def _out_of_range(wish: Wish, concepts: Sequence[Concept]) -> list[str]:
    problems = []
    if not 0 <= wish.seed <= MAX_SEED:
        problems.append(
            f"seed: expected a whole number from 0 to {MAX_SEED}, found {_number(wish.seed)}"
        )
    known = {concept.name for concept in concepts}
    for name, value in wish.strengths.items():
        if name != EVERY and name not in known:
            learned = ", ".join(f"<{one}>" for one in sorted(known)) or "none yet"
            problems.append(
                f"strength of {name!r}: expected a concept that this line knows, which are: "
                f"{learned}"
            )
        if not 0 <= value <= MAX_STRENGTH:
            problems.append(_bad_strength(f"{name}={value}", again=False))
    return problems


def _strengths(wish: Wish, concepts: Sequence[Concept]) -> dict[str, float]:
    """Of the concepts that the prompts name; of all where they name none and all are given one."""
    given, every = wish.strengths, wish.strengths.get(EVERY, 1.0)
    if named := _named(wish):
        return {name: given.get(name, every) for name in named}
    return dict.fromkeys((one.name for one in concepts), every) if EVERY in given else {}


def _named(wish: Wish) -> tuple[str, ...]:
    return placeholders_in(f"{wish.prompt} {wish.negative}")


def _bad_strength(text: str, again: bool) -> str:
    if again:
        return f"strength {text[:60]!r}: expected each concept once, found it a second time"
    return (
        f"strength {text[:60]!r}: expected NAME=NUMBER or NUMBER, from 0 (not at all) to "
        f"{MAX_STRENGTH:g}; 1 is as learned"
    )


def _number(value: int) -> str:
    """A number as a message shows it, however long it is."""
    return str(value) if abs(value) < 10**30 else "one of more than 30 digits"
