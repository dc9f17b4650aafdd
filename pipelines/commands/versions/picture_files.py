"""Names of drawn pictures, prompts in a file, and files that replace nothing."""

import os
import re
import string
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from l2dm.errors import BadInput, BadPrompt
from l2dm.files.full_disk import told_where

PATTERN = "{line}-{digest}-{seed:05d}"
FIELDS: Mapping[str, type] = {
    "line": str,
    "version": int,
    "prompt": str,
    "digest": str,
    "seed": int,
    "number": int,
}
MAX_FILE = 1_000_000  # bytes of a file of prompts
MAX_NAME = 200  # bytes of a picture's name
MAX_COPIES = 10_000  # other pictures of one name in one folder
_SPEC = re.compile(r"0?[1-9]?\d?d?")  # `05d`: a width of 99 at most
_WORDS = 40  # characters of a prompt in a name


def require_pattern(pattern: str) -> None:
    """Raise BadInput, with the fields that there are, for a pattern that makes no file names."""
    try:
        name(pattern, {key: 1 if kind is int else "x" for key, kind in FIELDS.items()})
    except (ValueError, LookupError) as error:
        fields = ", ".join(f"{{{field}}}" for field in FIELDS)
        raise BadInput(
            f"name {pattern[:80]!r}: expected a file name without folders, in which {fields} may "
            f"stand, e.g. {PATTERN!r}; found {error}"
        ) from error


def name(pattern: str, values: Mapping[str, str | int]) -> str:
    """The name of one picture. Raises ValueError, LookupError for a bad pattern.

    values: of `FIELDS`. A prompt stands in it in plain letters, so that it is a name anywhere.
    """
    made = []
    for text, field, form, conversion in string.Formatter().parse(pattern):
        made.append(text)
        if field is None:
            continue
        if field not in FIELDS:
            raise LookupError(f"{{{field[:40]}}}")
        if conversion or not _SPEC.fullmatch(form or "") or (form and FIELDS[field] is str):
            raise ValueError(f"{field!r} in another form than {{{field}}} or, of a number, :05d")
        value = values[field]
        made.append(format(_plain(value) if field == "prompt" else value, form or ""))
    found = "".join(made).removesuffix(".png")
    if not found or found.startswith(".") or re.search(r'[/\\\x00-\x1f\x7f:*?"<>|]', found):
        raise ValueError(f"the name {found[:80]!r}")
    if len(os.fsencode(found)) > MAX_NAME:
        raise ValueError(f"a name of over {MAX_NAME} bytes")
    return f"{found}.png"


def read_prompts(file: Path) -> list[str]:
    """The prompts of a text file, one a line; empty lines and those that begin with # are left out.

    Raises BadPrompt.
    """
    if not file.is_file():
        raise BadPrompt(f"expected a text file of prompts, found none at {file}")
    with open(file, "rb") as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BadPrompt(f"{file}: expected at most {MAX_FILE:,} bytes of prompts; split the file")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadPrompt(f"{file}: expected UTF-8 text, found {error}; save it as UTF-8") from error
    prompts = [line.strip() for line in lines]
    if found := [prompt for prompt in prompts if prompt and not prompt.startswith("#")]:
        return found
    raise BadPrompt(f"{file}: expected a prompt a line, found none")


def require_distinct(names: Sequence[str], pattern: str) -> None:
    """Raise BadInput where two pictures of one request would have one name."""
    if len(set(names)) < len(names):
        raise BadInput(
            f"name {pattern!r}: expected another name for each of {len(names)} pictures, found "
            "some twice; put {seed}, {digest} or {number} into it"
        )


def write_new(path: Path, data: bytes) -> Path:
    """Write a file that appears whole and replaces none; returns where it is.

    Where a file of this name holds something else, the new one gets a number behind its name.
    """
    draft = path.with_name(f".{uuid.uuid4().hex}.png")
    try:
        with told_where(path):
            draft.write_bytes(data)
        for number in range(1, MAX_COPIES):
            free = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            if _placed(draft, free) or _holds(free, data):
                return free
    finally:
        draft.unlink(missing_ok=True)
    raise BadInput(f"expected room for one more picture named {path.name}; choose another folder")


def _placed(draft: Path, free: Path) -> bool:
    try:
        os.link(draft, free)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with open(free, "xb") as file:
                file.write(draft.read_bytes())
        except FileExistsError:
            return False
    return True


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file holds these bytes; what is no file holds none."""
    same_size = path.is_file() and path.stat().st_size == len(data)
    return same_size and path.read_bytes() == data


def _plain(prompt: str | int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(prompt).lower())[:_WORDS].strip("-") or "prompt"
