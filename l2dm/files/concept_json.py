"""`concept.json` commits an upload: its name, its size, its bytes, what names may be in it."""

import json
import re

from l2dm.doors import Upload
from l2dm.files.manifest import to_data

FILE = "concept.json"
MAX_JSON = 1_000_000  # bytes of it; twenty pictures need about three thousand
MAX_NOUN = 40  # characters of a class noun
SLUG = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # what names a line or a concept

NAMED = "1 to 40 lowercase letters, digits, - and _, a letter first"  # the same for people


def to_bytes(upload: Upload) -> bytes:
    """A concept.json as it is stored."""
    return json.dumps(to_data(upload), sort_keys=True, indent=1).encode()


def leads_out(name: str) -> bool:
    """Whether a listed picture's name is a path out of the upload's own folder."""
    return "/" in name or "\\" in name or name in ("", ".", "..")
