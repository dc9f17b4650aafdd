"""What an upload may be: the names, the class noun, the pictures.

Every problem of an upload is found before the first one is reported. What a picture may be is in
`pictures.py`, how an upload lies in a folder in `folder.py`.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from l2dm.doors import Concept, Upload
from l2dm.errors import BadUpload
from l2dm.files.concept_json import FILE, MAX_NOUN, SLUG
from l2dm.files.door_files import CLASS_SHEETS
from l2dm.spec import IntakeSpec
from l2dm.uploads.pictures import Appearance, look, repeats

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}  # lower case; names with a dot are hidden


def check_names(
    line: str,
    concept: Concept,
    taken: Mapping[str, str],
    vocabulary: Container[str] | None = None,
) -> list[str]:
    """Every problem of the names of an upload, in a sentence each.

    taken: concept names of the line that cannot be used again, with the reason.
    vocabulary: the tokenizer's tokens, when they are at hand; the placeholder must be new to it.
    """
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


def check_pictures(
    folder: Path, spec: IntakeSpec, see: Callable[[str, "Image.Image"], None] | None = None
) -> tuple[list[str], dict[str, Appearance]]:
    """Every problem of the pictures in a folder, and how those look that can be used, by name.

    see: is given the name and the upright RGB of each of them, so that nobody decodes it again.
    """
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
    looks: dict[str, Appearance] = {}
    if len(paths) > 5 * spec.max_pictures:  # not an upload: nobody wants a thousand sentences
        return problems, looks
    for path in paths:
        try:
            looks[path.name] = look(path, spec, see and partial(see, path.name))
        except BadUpload as error:
            problems += error.problems
    problems += [
        f"pictures {one!r} and {other!r}: expected different pictures, found the same one twice; "
        "take one out or replace it"
        for one, other in repeats(looks, spec.near_duplicate_bits)
    ]
    return problems, looks


def task_pictures(
    folder: Path,
    upload: Upload,
    side: int,
    spec: IntakeSpec,
    taken: Mapping[str, str],
    vocabulary: Container[str] | None = None,
    *,
    line: str,
) -> "Tensor":
    """The pictures of an upload cropped to their centre, (n, 3, side, side) uint8 RGB.

    line: the one that looks at it. Line, names and pictures are checked in the same decoding.
    Raises BadUpload with every problem.
    """
    import torch

    from l2dm.files.images import centre_square

    squares: dict[str, Tensor] = {}

    def see(name: str, picture: "Image.Image") -> None:
        squares[name] = centre_square(picture, side)

    problems = check_names(upload.line, upload.concept, taken, vocabulary)
    if upload.line != line:
        problems.append(
            f"upload {folder.name!r}: expected one for line {line!r}, its concept.json "
            f"says {upload.line!r}; submit it again with --line {line}"
        )
    problems += check_pictures(folder, spec, see)[0]
    if problems:
        raise BadUpload(problems)
    return torch.stack([squares[listed.name] for listed in upload.pictures])


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


def visible(folder: Path) -> list[Path]:
    """What lies in an upload, sorted; an old concept.json and what systems leave is not meant."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in {*SYSTEM_FILES, FILE}
    )


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
