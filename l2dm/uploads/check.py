"""What an upload may be: the names, the class noun, the pictures.

Every problem of an upload is found before the first one is reported. What a picture may be is in
`pictures.py`, how an upload lies in a folder in `folder.py`.
"""

import math
import os
import re
import unicodedata
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from l2dm import escape
from l2dm.doors import Concept, Upload
from l2dm.errors import BadUpload
from l2dm.files.concept_json import FILE, MAX_NOUN, NAMED, SLUG
from l2dm.files.door_files import CLASS_SHEETS
from l2dm.spec import IntakeSpec
from l2dm.uploads import captions
from l2dm.uploads.crop import MUCH, Box
from l2dm.uploads.likeness import repeats
from l2dm.uploads.pictures import SeenPicture
from l2dm.uploads.reader import PictureReader

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = 8  # levels between any two pixels of a picture of one colour, as an encoder leaves it
SHOWN = 8  # names in one remark
MAX_TYPED = 80  # characters of what somebody typed, in a message

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


class CheckedPictures(NamedTuple):
    """What was found in a folder of pictures.

    problems: why it is no upload. seen: pictures that can be used, by name. remarks: what whoever
    submits them may want to know. captions: the files with them, by the picture's name.
    """

    problems: list[str]
    seen: dict[str, SeenPicture]
    remarks: list[str]
    captions: dict[str, Path]


class TaskPictures(NamedTuple):
    """Pictures of a task, (n, 3, side, side) uint8 RGB, and the box of each in its upload."""

    pixels: "Tensor"
    boxes: tuple[Box, ...]


def check_pictures(
    folder: Path, spec: IntakeSpec, side: int = 0, resolution: int = 0
) -> CheckedPictures:
    """Every problem of the pictures in a folder, and what is seen of those that can be used.

    side: of the squares that are wanted; 0: none. resolution: of the base's pictures, in pixels;
    0: not known.
    """
    if not folder.is_dir():
        problem = (
            f"expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'} "
            f"at {str(folder)!r}; pass the folder that holds them"
        )
        return CheckedPictures([problem], {}, [], {})
    paths, problems = _picture_files(folder)
    beside = captions.sort(paths)
    count, problems = len(beside.pictures), [*problems, *beside.problems]
    if not spec.min_pictures <= count <= spec.max_pictures:
        problems.append(
            f"expected {spec.min_pictures} to {spec.max_pictures} pictures, found {count} in "
            f"{str(folder)!r}; {'add' if count < spec.min_pictures else 'keep the best'} some"
        )
    if count > 5 * spec.max_pictures:  # not an upload: nobody wants a thousand sentences
        return CheckedPictures(problems, {}, [], {})
    seen, found = _read(beside.pictures, spec, side)
    problems += [*found, *_small(seen, spec, resolution), *_plain(seen), *_twice(seen, spec)]
    return CheckedPictures(
        problems, seen, _remarks(seen, beside.ignored, resolution), beside.captions
    )


def task_pictures(
    folder: Path,
    upload: Upload,
    side: int,
    spec: IntakeSpec,
    taken: Mapping[str, str],
    vocabulary: Container[str] | None = None,
    *,
    line: str,
) -> TaskPictures:
    """The pictures of an upload, of each the square with most of its content.

    line: the one that looks at it. side: of the base's pictures. Line, names and pictures are
    checked in the same decoding. Raises BadUpload with every problem.
    """
    from l2dm.files.images import from_bytes

    problems = check_names(upload.line, upload.concept, taken, vocabulary)
    if upload.line != line:
        problems.append(
            f"upload {folder.name!r}: expected one for line {line!r}, its concept.json "
            f"says {upload.line!r}; submit it again with --line {line}"
        )
    checked = check_pictures(folder, spec, side, side)
    problems += checked.problems
    if problems:
        raise BadUpload(problems)
    seen = [checked.seen[listed.name] for listed in upload.pictures]
    pixels = from_bytes([one.square for one in seen], side)
    return TaskPictures(pixels, tuple(one.cut.box for one in seen))


def _read(
    paths: Sequence[Path], spec: IntakeSpec, side: int
) -> tuple[dict[str, SeenPicture], list[str]]:
    seen, problems = dict[str, SeenPicture](), list[str]()
    with PictureReader(spec, side) as reader:
        for path in paths:
            try:
                seen[path.name] = reader.read(path)
            except BadUpload as error:
                problems += error.problems
    return seen, problems


def _small(seen: Mapping[str, SeenPicture], spec: IntakeSpec, resolution: int) -> Iterator[str]:
    """Pictures that would be enlarged so much that the enlargement is learned."""
    least = math.ceil(spec.min_share * resolution)
    for name, one in seen.items():
        width, height = one.look.size
        if min(width, height) < least:
            yield (
                f"picture {name!r}: expected at least {least} pixels on each side for a base that "
                f"draws {resolution} x {resolution}, found {width} x {height}; take a larger one, "
                "or lower intake.min_share"
            )


def _plain(seen: Mapping[str, SeenPicture]) -> Iterator[str]:
    for name, one in seen.items():
        if one.look.span <= PLAIN:
            yield (
                f"picture {name!r}: expected something to see, found one colour all over; take it "
                "out or replace it"
            )


def _twice(seen: Mapping[str, SeenPicture], spec: IntakeSpec) -> Iterator[str]:
    looks = {name: one.look for name, one in seen.items() if one.look.span > PLAIN}
    for one, other in repeats(looks, spec.copy_levels):
        yield (
            f"pictures {one!r} and {other!r}: expected different pictures, found the same one "
            "twice; take one out or replace it"
        )


def _remarks(seen: Mapping[str, SeenPicture], ignored: Sequence[str], resolution: int) -> list[str]:
    remarks = []
    if ignored:
        remarks.append(f"ignored, since they are no pictures: {_some(ignored)}")
    small = [
        f"{name!r} ({one.look.size[0]} x {one.look.size[1]})"
        for name, one in seen.items()
        if min(one.look.size) < resolution
    ]
    if small:
        remarks.append(
            f"smaller than the {resolution} x {resolution} that the base draws, so they are "
            f"enlarged: {_some(small)}"
        )
    odd = [f"{name!r} ({one.note})" for name, one in seen.items() if one.note]
    if odd:
        remarks.append(
            f"read as sRGB, though their files say otherwise: {_some(odd)}; if their colours look "
            "wrong in the report, save them as sRGB"
        )
    cut = [
        f"{name!r} ({one.cut.lost:.0%} is cut off)"
        for name, one in seen.items()
        if one.cut.lost > MUCH
    ]
    if cut:
        remarks.append(
            "far from square, so only the square with most of the content is learned: "
            f"{_some(cut)}; crop them yourself to choose it"
        )
    return remarks


def _some(names: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def slug_problem(what: str, name: str) -> str | None:
    """Why `name` cannot name a line or a concept, with the slug it could be; None when it can."""
    if SLUG.fullmatch(name):
        return None
    return f"{what} {_quoted(name)}: expected {NAMED}; try {suggest_slug(name)!r}"


def _quoted(text: str) -> str:
    return repr(escape.shortened(text, MAX_TYPED))


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
        f"class noun {_quoted(noun)}: expected what the thing is in at most {MAX_NOUN} "
        f'printable characters, found {found}; say for example "dog" or "toy car"'
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
