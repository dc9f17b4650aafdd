"""What MLflow takes as a name, a value and a file's name: everything told to it goes through here.

Names are made of words that people choose (a class noun may be `child's toy`, or hold an emoji),
and MLflow refuses a whole request for one of them. What it takes stays as it is. What it does not
take becomes `_`, followed by a few characters that tell two such names apart.
"""

import hashlib
import re
from pathlib import PurePath
from typing import Any

from l2dm import escape

LONGEST_NAME = 250  # characters, MLflow's limit for metrics, parameters and tags
LONGEST_VALUE = 5000  # of a tag; the columns of older databases hold no more
LONGEST_PARAM = 6000
LONGEST_FILE = 200  # bytes; a file system takes 255 for what MLflow makes of it

_STRANGE = re.compile(r"[^\w.\- ]")


def key(name: str) -> str:
    """A metric, parameter or tag as MLflow takes it; its parts stand between slashes."""
    made = "/".join(_part(part) for part in name.split("/"))
    return made if len(made) <= LONGEST_NAME else _cut(made, name, LONGEST_NAME)


def param(value: Any) -> str:
    """The value of a parameter."""
    return escape.shortened(str(value), LONGEST_PARAM)


def tag(value: str) -> str:
    """The value of a tag."""
    return escape.shortened(value, LONGEST_VALUE)


def file(name: str) -> str:
    """The name of a file as an address can hold it unquoted."""
    made = _part(name)
    if len(made.encode()) <= LONGEST_FILE:
        return made
    suffix = PurePath(made).suffix[:20]
    kept = made.encode()[: LONGEST_FILE - len(suffix.encode()) - 9].decode(errors="ignore")
    return f"{kept}-{_digest(name)}{suffix}"


def _part(part: str) -> str:
    made = _STRANGE.sub("_", part)
    if made == part and part == part.strip() and part and not part.startswith("."):
        return part
    stem, dot, suffix = made.rpartition(".")
    if not dot or not suffix.isalnum():  # no kind of a file, which is kept
        stem, suffix = made, ""
    return f"{stem.strip('. ') or '_'}-{_digest(part)}{dot and suffix and '.'}{suffix}"


def _cut(made: str, name: str, longest: int) -> str:
    return f"{made[: longest - 9].rstrip('/. ')}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
