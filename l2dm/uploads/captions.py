"""What lies beside pictures: a caption each, and files of phones and albums that are no pictures.

`rex.txt` beside `rex.jpg` says what that picture shows, as trainers write it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from l2dm.doors import Concept

SUFFIXES = (".txt", ".caption")  # of a caption
# Edits and films of phones, settings of cameras and developers, what Takeout says of each picture.
SIDE_FILES = (".aae", ".mov", ".mp4", ".xmp", ".json", ".thm", ".lrv", ".ini", ".db")
MAX_CAPTION = 500  # characters; a text encoder reads about 75 words
_MAX_BYTES = 8 * MAX_CAPTION
_BLANK = "{}"  # where a caption may leave room for the concept
_WORD = re.compile(r"<[^<>\s]*>")
_NEARLY = r"<+\s*[^\W\d_][\w-]*\s*>+|<+[^\W\d_][\w-]*"  # `< toy >`, `<<toy>>`, `<toy`
_OWN_HALF = r"<+\s*{0}(?![\w-])|(?<![\w-]){0}\s*>+"  # `< rex`, `rex>`, `rex >` of a concept rex


@dataclass(frozen=True)
class Sorted:
    """The files of an upload. captions: by the picture's name; ignored: names of side files."""

    pictures: list[Path] = field(default_factory=list)
    captions: dict[str, Path] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sort(paths: Sequence[Path]) -> Sorted:
    """Tell pictures from what lies beside them, by their names."""
    found = Sorted()
    texts = [path for path in paths if path.suffix.lower() in SUFFIXES]
    for path in paths:
        if path.suffix.lower() in SIDE_FILES:
            found.ignored.append(path.name)
        elif path not in texts:
            found.pictures.append(path)
    for path in texts:
        pictures = [one for one in found.pictures if path.stem in (one.stem, one.name)]
        for one in pictures:
            if one.name in found.captions:
                found.problems.append(
                    f"{path.name!r}: expected one caption for picture {one.name!r}, found "
                    f"{found.captions[one.name].name!r}, too; take one of them out"
                )
            found.captions[one.name] = path
        if not pictures:
            found.problems.append(
                f"{path.name!r}: expected the caption of a picture, as rex.txt is of rex.jpg, "
                "found no picture of that name; rename it or take it out"
            )
    return found


def read(path: Path) -> str:
    """The text of a caption's file, on one line. Raises ValueError, which says what is wrong."""
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES:,} bytes")
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise ValueError("another encoding than UTF-8") from error


def problem(name: str, caption: str, concept: Concept, *, typed: bool = False) -> str | None:
    """Why a caption cannot be a prompt; None when it can. name: of what holds it.

    typed: also when brackets are nearly a placeholder, which is learned as letters; < and > beside
    other words are text, as in prompts. Uploads that were accepted before that was asked stay.
    """
    words = [word for word in _WORD.findall(caption) if word != concept.placeholder]
    if typed and not words:
        rest = re.sub(rf"(?<!<){re.escape(concept.placeholder)}(?!>)", " ", caption)
        nearly = f"{_NEARLY}|{_OWN_HALF.format(re.escape(concept.name))}"
        words = [found[0] for found in re.finditer(nearly, rest, re.IGNORECASE)]
    found = ""
    if len(caption) > MAX_CAPTION:
        found = f"{len(caption):,} characters"
    elif not caption.isprintable():
        found = "control characters"
    elif words:
        found = f"{words[0][:60]!r}, which is not the placeholder {concept.placeholder!r}"
    if not found:
        return None
    return (
        f"caption {name!r}: expected at most {MAX_CAPTION} printable characters that name no other "
        f"concept, found {found}; mend it or take it out"
    )


def prompts(captions: Sequence[str], templates: Sequence[str], concept: Concept) -> tuple[str, ...]:
    """Each picture's prompt: its caption where that names the thing, else a template and that.

    captions: one a picture, "" where it has none. templates: with {} for the concept, in turn.
    """
    wordings = (templates[i % len(templates)] for i in range(len(captions)))
    return tuple(
        _prompt(caption, template, concept)
        for caption, template in zip(captions, wordings, strict=True)
    )


def _prompt(caption: str, template: str, concept: Concept) -> str:
    if concept.placeholder in caption:
        return caption
    if _BLANK in caption:
        return caption.replace(_BLANK, concept.phrase)
    noun = re.compile(rf"(?<!\w){re.escape(concept.class_noun)}(?!\w)", re.IGNORECASE)
    if noun.search(caption):
        return noun.sub(lambda _: concept.phrase, caption, count=1)
    said = template.format(concept.phrase)
    return f"{said}, {caption}" if caption else said


def texts(found: Mapping[str, Path], concept: Concept) -> tuple[dict[str, str], list[str]]:
    """The captions of pictures, by the picture's name, and what is wrong with them."""
    said, problems = dict[str, str](), list[str]()
    for name, path in found.items():
        try:
            said[name] = read(path)
        except ValueError as error:
            problems.append(
                f"caption {path.name!r}: expected a short text in UTF-8, found {error}; save it "
                "again or take it out"
            )
            continue
        wrong = problem(path.name, said[name], concept, typed=True)
        problems += [wrong] if wrong else []
    return said, problems
