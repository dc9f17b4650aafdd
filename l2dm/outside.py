"""JSON that came from outside: read with limits on its size, its depth and its numbers.

Python's own reader ends in a RecursionError for ten thousand brackets, which nobody expects, and
takes a minute for a number of a million digits where its limit is lifted. Standard library only.
"""

import json
from collections.abc import Iterable
from typing import Any

MAX_BYTES = 64 << 20
MAX_DEPTH = 64
MAX_DIGITS = 400  # of a number; no float holds more


def read_json(text: str | bytes, most: int = MAX_BYTES) -> Any:
    """What a text says. Raises ValueError, in a sentence, for no JSON and for what is too much.

    most: bytes or characters that it may have.
    """
    if len(text) > most:
        raise ValueError(f"expected at most {most:,} bytes, found {len(text):,}")
    try:
        found = json.loads(text, parse_int=_int, parse_float=_float)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _require_shallow(found)
    return found


_TOO_DEEP = f"expected brackets up to {MAX_DEPTH} deep, found more"


def _require_shallow(found: Any) -> None:
    """Breadth first, so that no depth is too much for this."""
    layer = [found]
    for _ in range(MAX_DEPTH + 1):
        layer = [inner for one in layer for inner in _inside(one)]
        if not layer:
            return
    raise ValueError(_TOO_DEEP)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _int(digits: str) -> int:
    return int(_bounded(digits))


def _float(digits: str) -> float:
    return float(_bounded(digits))


def _bounded(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise ValueError(
            f"expected numbers up to {MAX_DIGITS} digits, found one of {len(digits):,}"
        )
    return digits
