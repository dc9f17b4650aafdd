"""Texts of a `concept.json` as nobody's program writes them: made by a seed, always the same."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from tests.worlds import hostile_text

NUMBERS = (0, -1, 1, 0.5, 1e308, 10**18, -(10**18), 2**63, 10**300, 10**400, True, False)
ODD = (None, "", [], {}, [[]], [None], {"a": 1}, "x" * 5000, ["x"] * 500, *NUMBERS)
NAMES = ("../secret.png", "/etc/passwd", "..", ".", "", "a/b.png", "a\\b", ".hidden", "00.png\0",
         "concept.json", "x" * 300, "00.PNG", "nul", "\ud800.png")  # fmt: skip
RAW = (
    b"", b"{", b"[]", b"3", b"null", b"NaN", b'"x"', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}",
    b"\0" * 99,
    b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b"-" * 1000, b"{}" * 1000, b"\x1f\x8b\x08\0",
    b'{"line": "pets", "line": "cats"}', b'{"\\ud800": 1}', b'{"line": 1e999}', b"{'line': 'pets'}",
)  # fmt: skip
TEXTS = tuple(hostile_text.texts())
Rule = Callable[[random.Random, dict[str, Any]], bytes]


def make(good: bytes, seed: int) -> bytes:
    """A hostile text for a seed. good: a text that a program of ours has written."""
    rng = random.Random(seed)
    return RULES[seed % len(RULES)](rng, json.loads(good))


def _text(data: Any) -> bytes:
    return json.dumps(data).encode("utf-8", "surrogatepass")


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in it, as steps from the whole."""
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for step, value in inner:
        found.append((*at, step))
        if isinstance(value, (dict, list)):
            found += _places(value, (*at, step))
    return found


def _holder(data: Any, place: tuple[Any, ...]) -> Any:
    for step in place[:-1]:
        data = data[step]
    return data


def other_value(rng: random.Random, data: dict[str, Any]) -> bytes:
    """Something else in one place, or in three."""
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.choice(_places(data))
        _holder(data, place)[place[-1]] = copy.deepcopy(rng.choice(ODD))
    return _text(data)


def hostile_words(rng: random.Random, data: dict[str, Any]) -> bytes:
    """What somebody may type, where there is text."""
    places = [one for one in _places(data) if isinstance(_holder(data, one)[one[-1]], str)]
    place = rng.choice(places)
    _holder(data, place)[place[-1]] = rng.choice(TEXTS)
    return _text(data)


def other_keys(rng: random.Random, data: dict[str, Any]) -> bytes:
    """One key less, one more, or one with another name."""
    holders = [data, data["concept"], *data["pictures"], data["limits"]]
    holder = rng.choice(holders)
    if holder and rng.random() < 0.6:
        value = holder.pop(rng.choice(sorted(holder)))
        if rng.random() < 0.5:
            return _text(data)
    else:
        value = rng.choice(ODD)
    holder[rng.choice((*TEXTS, "name", "captions", "__class__"))] = value
    return _text(data)


def other_limits(rng: random.Random, data: dict[str, Any]) -> bytes:
    """Limits that nobody accepts anything under."""
    limits = data["limits"]
    for key in rng.sample(sorted(limits), rng.randint(1, len(limits))):
        limits[key] = rng.choice(NUMBERS)
    if rng.random() < 0.4:
        limits["near_duplicate_bits"] = rng.choice(NUMBERS)
        limits.pop("copy_levels", None)
    return _text(data)


def other_pictures(rng: random.Random, data: dict[str, Any]) -> bytes:
    """Pictures that lie elsewhere, twice, or without end."""
    pictures = data["pictures"]
    how = rng.choice(("name", "twice", "many", "sum", "none"))
    if how == "name":
        rng.choice(pictures)["name"] = rng.choice(NAMES)
    elif how == "twice":
        pictures.append(dict(rng.choice(pictures)))
    elif how == "many":
        data["pictures"] = [{"name": f"{i}.png", "sha256": "0" * 64} for i in range(3000)]
    elif how == "sum":
        rng.choice(pictures)["sha256"] = rng.choice(("", "0" * 64, "x", "A" * 10_000))
    else:
        pictures.clear()
    return _text(data)


def other_bytes(rng: random.Random, data: dict[str, Any]) -> bytes:
    """A few bytes are others, or the end is missing."""
    text = bytearray(_text(data))
    if rng.random() < 0.4:
        return bytes(text[: rng.randrange(len(text))])
    for _ in range(rng.choice((1, 2, 10))):
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


def no_concept(rng: random.Random, data: dict[str, Any]) -> bytes:
    """No such thing at all."""
    return rng.choice(RAW)


RULES: tuple[Rule, ...] = (
    other_value, hostile_words, other_keys, other_limits, other_pictures, other_bytes, no_concept,
)  # fmt: skip
