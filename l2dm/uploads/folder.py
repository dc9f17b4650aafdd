"""An upload as a folder: its pictures, and `concept.json`, which lists them with their bytes.

Committing one to a line is not done here: its pictures go into the line's store, concept.json last.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from l2dm.doors import Concept, PictureFile, Upload
from l2dm.errors import BadUpload
from l2dm.files.concept_json import (
    FILE,
    MAX_FILES,
    MAX_FOUND,
    MAX_JSON,
    at_most,
    leads_out,
    to_bytes,
)
from l2dm.files.manifest import from_data, sha256_of
from l2dm.spec import IntakeSpec
from l2dm.uploads import captions
from l2dm.uploads.check import check_names, check_pictures, visible
from l2dm.uploads.pictures import SUFFIXES, SeenPicture


def write_upload(  # noqa: PLR0913 - what is uploaded, where to, and what is known of it
    folder: Path,
    pictures: Path,
    line: str,
    concept: Concept,
    spec: IntakeSpec,
    taken: Mapping[str, str],
    *,
    replaces: bool = False,
    resolution: int = 0,
    remark: Callable[[str], object] = lambda _: None,
) -> Upload:
    """Check the pictures of one folder and copy them, with concept.json, into another.

    folder: of the upload, not there yet. replaces: see Upload. Bytes are kept, names become 00.jpg,
    01.png, ... in the order of the old names. resolution: of the base that will learn them, 0 if it
    is not known. remark: is given what whoever submits them may want to know. Raises BadUpload with
    every problem; then, and after a full disk or a kill, there is no upload.
    """
    spec = at_most(spec)
    problems = check_names(line, concept, taken)
    if not problems and (folder / FILE).exists():
        problems.append(
            f"concept {concept.name!r}: expected a new upload, found one already waiting in "
            f"{str(folder)!r}; choose another name, or remove that folder first"
        )
    checked = check_pictures(pictures, spec, resolution=resolution)
    said, wrong = captions.texts(checked.captions, concept)
    if problems or checked.problems or wrong:
        raise BadUpload([*problems, *checked.problems, *wrong])
    for one in checked.remarks:
        remark(one)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        copied = tuple(_copied(pictures, checked.seen.items(), said, draft))
        upload = Upload(line, concept, copied, replaces, spec.model_dump())
        (draft / FILE).write_bytes(to_bytes(upload))
        _rename(draft, folder)
    return upload


def read_upload(folder: Path) -> Upload:
    """The upload in a folder, compared with its concept.json byte by byte. Raises BadUpload."""
    upload = _parse(folder / FILE)
    if (count := len(upload.pictures)) > MAX_FILES:  # nobody wants a sentence on each of thousands
        raise BadUpload(
            f"{str(folder / FILE)!r}: expected at most {MAX_FILES} pictures, found {count:,}; "
            "submit the pictures of one concept"
        )
    problems = check_names(upload.line, upload.concept, {})
    problems += _unlisted(folder, upload)
    for picture in upload.pictures:
        wrong = captions.problem(picture.name, picture.caption, upload.concept)
        problems += [wrong] if wrong else []
    if problems:
        raise BadUpload(problems)
    return upload


def _copied(
    pictures: Path, found: Iterable[tuple[str, SeenPicture]], said: Mapping[str, str], draft: Path
) -> Iterator[PictureFile]:
    for index, (name, seen) in enumerate(found):
        stored = f"{index:02d}.{SUFFIXES[seen.look.format]}"
        content = (pictures / name).read_bytes()
        (draft / stored).write_bytes(content)
        yield PictureFile(stored, hashlib.sha256(content).hexdigest(), said.get(name, ""))


def _rename(draft: Path, folder: Path) -> None:
    try:
        os.rename(draft, folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise BadUpload(
            f"expected a folder for the upload that is not there yet, found one with other files "
            f"at {str(folder)!r}; name another one, or remove it first"
        ) from error


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
            f"found something else ({str(error)[:MAX_FOUND]}); submit the pictures again"
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
        if leads_out(picture.name):
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
