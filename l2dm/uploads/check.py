"""From an upload to what a task is made of: checked, submitted, waiting, read.

Every problem of an upload is found before the first one is reported. How uploads are stored is in
`inbox.py`, what a picture may be in `pictures.py`.
"""

import json
import os
import re
import unicodedata
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from l2dm.doors import Concept, Upload
from l2dm.errors import BadUpload
from l2dm.files.manifest import from_data, sha256_of
from l2dm.spec import IntakeSpec
from l2dm.uploads.inbox import FILE, already, lines, place, store, visible, waiting
from l2dm.uploads.pictures import Look, look, open_picture, repeats

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FILE",
    "check",
    "lines",
    "read_upload",
    "slug_problem",
    "submit",
    "suggest_slug",
    "task_pictures",
    "waiting",
]

MAX_JSON = 1_000_000  # bytes of concept.json; twenty pictures need about three thousand
MAX_NOUN = 40  # characters
SLUG = re.compile(r"[a-z][a-z0-9_-]{0,39}")
CLASS_SHEETS = "class-"  # sheets/<row>/class-<noun>.png lies beside sheets/<row>/<concept>.png


def check(
    folder: Path,
    line: str,
    concept: Concept,
    spec: IntakeSpec,
    taken: Mapping[str, str],
    vocabulary: Container[str] | None = None,
) -> tuple[str, ...]:
    """Every problem of an upload in a sentence each; empty when it can be accepted.

    taken: concept names of the line that cannot be used again, with the reason.
    vocabulary: the tokenizer's tokens, when they are at hand; the placeholder must be new to it.
    """
    names = _names(line, concept, taken, vocabulary)
    return (*names, *_examine(folder, spec)[0])


def submit(
    folder: Path,
    inbox: Path,
    line: str,
    concept: Concept,
    spec: IntakeSpec,
    taken: Mapping[str, str],
) -> Upload:
    """Copy the pictures of `folder` to `inbox/<line>/<concept>/` and commit them.

    Bytes are kept, names become 00.jpg, 01.png, ... in the order of the old names. Raises BadUpload
    with every problem and writes nothing; after a full disk or a kill the upload is absent.
    """
    problems = _names(line, concept, taken, None)
    target = place(inbox, line, concept)
    if not problems and (target / FILE).exists():
        problems.append(already(target))
    found, looks = _examine(folder, spec)
    if problems or found:
        raise BadUpload([*problems, *found])
    return store(folder, inbox, line, concept, looks)


def read_upload(folder: Path) -> Upload:
    """The upload in a folder, compared with its concept.json byte by byte. Raises BadUpload."""
    upload = _parse(folder / FILE)
    problems = _names(upload.line, upload.concept, {}, None)
    problems += _unlisted(folder, upload)
    if problems:
        raise BadUpload(problems)
    return upload


def task_pictures(folder: Path, upload: Upload, side: int, spec: IntakeSpec) -> "Tensor":
    """The pictures of an upload cropped to their centre, (n, 3, side, side) uint8 RGB.

    Raises BadUpload with every picture that cannot be used.
    """
    import torch

    from l2dm.files.images import fit

    pictures: list[Tensor] = []
    problems: list[str] = []
    for listed in upload.pictures:
        try:
            pictures.append(fit(open_picture(folder / listed.name, spec), side))
        except BadUpload as error:
            problems += error.problems
    if problems:
        raise BadUpload(problems)
    return torch.stack(pictures)


def slug_problem(what: str, name: str) -> str | None:
    """Why `name` cannot name a line or a concept, with the slug it could be; None when it can."""
    if SLUG.fullmatch(name):
        return None
    return (
        f"{what} {name!r}: expected 1 to 40 lowercase letters, digits, - and _, a letter first; "
        f"try {suggest_slug(name)!r}"
    )


def suggest_slug(name: str) -> str:
    """The nearest slug: accents dropped, the rest dashed; "my-concept" when no letter is left."""
    plain = unicodedata.normalize("NFKD", name).lower()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    slug = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_").removeprefix(CLASS_SHEETS)
    if slug and not slug[0].isalpha():
        slug = f"c-{slug}"
    return slug[:40].strip("-_") or "my-concept"


def _names(
    line: str, concept: Concept, taken: Mapping[str, str], vocabulary: Container[str] | None
) -> list[str]:
    name = concept.name
    problems: list[str | None] = [slug_problem("line", line), slug_problem("concept name", name)]
    if name.startswith(CLASS_SHEETS):
        problems.append(
            f"concept name {name!r}: names that begin with {CLASS_SHEETS!r} are kept for the "
            f"pictures of a class; try {suggest_slug(name)!r}"
        )
    if name in taken:
        problems.append(
            f"concept name {name!r}: expected one that is new in line {line!r}, found it taken "
            f"({taken[name]}); choose another name"
        )
    # CLIP's tokenizer marks the end of a word in the token itself.
    word = concept.placeholder
    if vocabulary is not None and (word in vocabulary or f"{word}</w>" in vocabulary):
        problems.append(
            f"concept name {name!r}: expected a placeholder that is new to the tokenizer, found "
            f"{word!r} in its vocabulary; choose another name"
        )
    problems.append(_noun_problem(concept.class_noun))
    return [problem for problem in problems if problem]


def _noun_problem(noun: str) -> str | None:
    found = ""
    if not any(letter.isalpha() for letter in noun):
        found = "no letter in it"
    elif not noun.isprintable() or noun != noun.strip():
        found = "control characters, or spaces around it"
    elif len(noun) > MAX_NOUN:
        found = f"{len(noun)} characters"
    elif set(noun) & set("<>/\\"):
        found = "one of < > / \\ in it"
    if not found:
        return None
    return (
        f"class noun {noun!r}: expected what the thing is in at most {MAX_NOUN} printable "
        f'characters, found {found}; say for example "dog" or "toy car"'
    )


def _examine(folder: Path, spec: IntakeSpec) -> tuple[list[str], dict[str, Look]]:
    if not folder.is_dir():
        return [
            f"expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'} "
            f"at {str(folder)!r}; pass the folder that holds them"
        ], {}
    paths, problems = _picture_files(folder)
    if not spec.min_pictures <= len(paths) <= spec.max_pictures:
        problems.append(
            f"expected {spec.min_pictures} to {spec.max_pictures} pictures, found {len(paths)} in "
            f"{str(folder)!r}; {'add' if len(paths) < spec.min_pictures else 'keep the best'} some"
        )
    looks: dict[str, Look] = {}
    if len(paths) > 5 * spec.max_pictures:  # not an upload: nobody wants a thousand sentences
        return problems, looks
    for path in paths:
        try:
            looks[path.name] = look(path, spec)
        except BadUpload as error:
            problems += error.problems
    problems += [
        f"pictures {one!r} and {other!r}: expected different pictures, found the same one twice; "
        "take one out or replace it"
        for one, other in repeats(looks, spec.near_duplicate_bits)
    ]
    return problems, looks


def _picture_files(folder: Path) -> tuple[list[Path], list[str]]:
    paths: list[Path] = []
    problems: list[str] = []
    home = _target(folder)
    for path in visible(folder):
        found = ""
        if path.is_symlink() and not _target(path).is_relative_to(home):
            found = "a link that leads out of the folder"
        elif path.is_dir():
            found = "a sub-folder"
        elif not path.is_file():
            found = "a link to nothing or a special file"
        if found:
            problems.append(
                f"{path.name!r}: expected picture files only, found {found} in {str(folder)!r}; "
                "copy the pictures into the folder itself"
            )
        else:
            paths.append(path)
    return paths, problems


def _target(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises on links in a circle


def _parse(path: Path) -> Upload:
    if not path.is_file():
        raise BadUpload(
            f"expected a committed upload in {str(path.parent)!r}, found no {FILE}; "
            "submit the pictures with l2dm submit"
        )
    if path.stat().st_size > MAX_JSON:
        raise BadUpload(f"{str(path)!r}: expected at most {MAX_JSON:,} bytes; submit again")
    try:
        upload = from_data(Upload, json.loads(path.read_bytes()))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadUpload(
            f"{str(path)!r}: expected line, concept and pictures as l2dm submit writes them, "
            f"found something else ({error}); submit the pictures again"
        ) from error
    assert isinstance(upload, Upload)
    return upload


def _unlisted(folder: Path, upload: Upload) -> list[str]:
    """What the list says against what lies there; names are looked up, never joined to a path."""
    present = {path.name: path for path in visible(folder)}
    found = {}
    names = [picture.name for picture in upload.pictures]
    for picture in upload.pictures:
        path = present.pop(picture.name, None)
        if "/" in picture.name or "\\" in picture.name or picture.name in ("", ".", ".."):
            found[picture.name] = "a path that leads out of the folder"
        elif names.count(picture.name) > 1:
            found[picture.name] = "a name that is listed twice"
        elif path is None:
            found[picture.name] = "no such file"
        elif path.is_symlink() or not path.is_file():
            found[picture.name] = "a link or a folder"
        elif sha256_of(path) != picture.sha256:
            found[picture.name] = "other bytes than its sha256 says"
    found |= dict.fromkeys(present, "a file that is not listed")
    if not names:
        found["pictures"] = "an empty list"
    return [
        f"{name!r} of {str(folder / FILE)!r}: expected a listed picture inside the folder, found "
        f"{what}; submit the pictures again"
        for name, what in found.items()
    ]
