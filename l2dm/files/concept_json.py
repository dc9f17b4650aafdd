"""`concept.json` commits an upload: its name, its size, its bytes, what names may be in it."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from l2dm.doors import Upload
from l2dm.errors import BadSpec, BadUpload
from l2dm.files.manifest import from_data, to_data

if TYPE_CHECKING:  # pydantic is slow to import, and who lists uploads needs none
    from l2dm.spec import IntakeSpec

FILE = "concept.json"
MAX_JSON = 1_000_000  # bytes of it; twenty pictures need about three thousand
MAX_NOUN = 40  # characters of a class noun
MAX_FOUND = 200  # characters of what is wrong with one, in a message
MAX_FILES = 100  # pictures of one upload; more is none
CEILINGS = {"max_pictures": MAX_FILES, "max_pixels": 150_000_000, "max_bytes": 300_000_000}
SLUG = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # what names a line or a concept

NAMED = "1 to 40 lowercase letters, digits, - and _, a letter first"  # the same for people


def to_bytes(upload: Upload) -> bytes:
    """A concept.json as it is stored. What says nothing is left out."""
    data = to_data(upload)
    if not upload.replaces:  # as those that have no word of it
        del data["replaces"]
    if not upload.limits:
        del data["limits"]
    for picture in data["pictures"]:
        if not picture["caption"]:
            del picture["caption"]
    return json.dumps(data, sort_keys=True, indent=1).encode()


def at_most(spec: "IntakeSpec") -> "IntakeSpec":
    """The same, with no limit above what any upload may ask for (CEILINGS)."""
    values = spec.model_dump()
    capped = {key: min(values[key], most) for key, most in CEILINGS.items()}
    return type(spec)(**{**values, **capped})


def accepted_under(limits: Mapping[str, int | float], house: "IntakeSpec") -> "IntakeSpec":
    """The limits that an upload carries; the house's where it carries none. Raises BadUpload.

    What was accepted is not refused later because somebody learns with other settings. An upload
    may come from anybody who may write to the inbox, so none carries a limit above CEILINGS.
    """
    values, carried = house.model_dump(), house.as_called_now(limits)
    values |= {key: carried[key] for key in values if key in carried}
    values |= {key: min(values[key], most) for key, most in CEILINGS.items()}
    try:
        return type(house)(**values)
    except BadSpec as error:
        raise BadUpload(
            f"{FILE}: expected limits that an upload can be accepted under, found "
            f"{str(error)[:MAX_FOUND]}; submit the pictures again"
        ) from error


def limits_in(data: bytes, house: "IntakeSpec") -> "IntakeSpec":
    """The same of the bytes of a concept.json; the house's where it cannot be read."""
    try:
        limits = from_data(Mapping[str, int | float], json.loads(data)["limits"])
        return accepted_under(limits, house)
    except (ValueError, KeyError, TypeError, RecursionError, BadUpload):
        return house


def leads_out(name: str) -> bool:
    """Whether a listed picture's name is a path out of the upload's own folder."""
    return "/" in name or "\\" in name or name in ("", ".", "..")
