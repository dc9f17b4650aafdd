"""`l2dm submit`: check pictures and commit them as an upload, which waits to be learned."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.services.store.home import Home
from l2dm.errors import BadBase, BadUpload
from pipelines.commands.options import (
    BASE,
    HOME,
    BaseOption,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import note, tell, tell_json
from pipelines.commands.target import are_names, open_registry

if TYPE_CHECKING:
    from components.services.line.ledger import ConceptState
    from components.services.line.records import Records
    from l2dm.doors import Concept, Upload
    from l2dm.spec import IntakeSpec


def submit(  # noqa: PLR0913 - one parameter per option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the concept, a slug.")],
    class_noun: Annotated[str, typer.Option("--class-noun", help='What it is, e.g. "dog".')],
    replace: Annotated[
        bool, typer.Option("--replace", help="Teach a concept anew that the line knows.")
    ] = False,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the pictures and write the upload, concept.json last."""
    from l2dm.doors import Concept
    from l2dm.spec import Spec, override

    spec = override(Spec(), settings or []).intake
    named = Concept(concept, class_noun)
    upload = submit_pictures(Home.at(home), folder, line, named, spec, replace=replace, base=base)
    if json:
        tell_json(upload)
    else:
        tell(f"{line}/{concept}: {len(upload['pictures'])} pictures wait to be learned")
        for sentence in upload.get("warnings", ()):
            note(f"{line}/{concept}: {sentence}")


def submit_pictures(
    home: Home,
    pictures: Path,
    line: str,
    concept: "Concept",
    spec: "IntakeSpec",
    *,
    replace: bool = False,
    base: str = BASE,
) -> dict[str, Any]:
    """Check and commit an upload; an upload of this name that has ended is replaced.

    replace: it teaches a concept anew that the champion knows. base: that the line is to learn on,
    "" for its own; it is only asked whether such pictures mean anything to it, and how large it
    draws. Returns the upload as data. Raises BadUpload with every problem; nothing was written.
    """
    from components.services.line import submitted
    from components.services.line.records import Records
    from components.services.line.uploads import Uploads
    from l2dm.files import manifest
    from l2dm.uploads.folder import write_upload

    if not are_names(line, concept.name):  # never part of a path; the refusal lists all problems
        with tempfile.TemporaryDirectory() as scratch:
            write_upload(Path(scratch) / "upload", pictures, line, concept, spec, {})
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    since, known = records.state().last, records.concept(concept.name)
    taken = taken_names(home, line, concept.name, known, replace=replace)
    over = "" if concept.name in taken else uploads.digest(concept.name)
    if over and (known is None or known.upload != over):
        taken[concept.name] = "somebody submits it at this moment"
    learner = learner_of(home, line, records, base)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / concept.name
        upload, warnings = write_for(
            learner, folder, pictures, line, concept, spec, taken, replaces=replace
        )
        uploads.commit(folder, over)
    submitted.record(records, concept, known, upload=uploads.digest(concept.name), since=since)
    data: dict[str, Any] = manifest.to_data(upload)
    return data | ({"warnings": warnings} if warnings else {})


def write_for(
    learner: str,
    folder: Path,
    pictures: Path,
    line: str,
    concept: "Concept",
    spec: "IntakeSpec",
    taken: Mapping[str, str],
    *,
    replaces: bool,
) -> tuple["Upload", list[str]]:
    """`write_upload` for a base, "" for an unknown one; what is to be said of the pictures, too."""
    from l2dm.uploads.folder import write_upload

    warnings = list[str]()
    upload = write_upload(
        *(folder, pictures, line, concept, spec, taken),
        replaces=replaces,
        resolution=_resolution(learner),
        remark=warnings.append,
    )
    warnings += _unknown_to(learner, [folder / one.name for one in upload.pictures])
    return upload, warnings


def taken_names(
    home: Home, line: str, name: str, known: "ConceptState | None", *, replace: bool
) -> dict[str, str]:
    """Concept names that cannot be submitted, each with the reason.

    name, known: what is to be submitted, and what is recorded of it. replace: that teaches a
    concept anew. Raises BadUpload where the line does not know it.
    """
    from components.services.line import status_cache

    index = status_cache.read(home, line, lambda: open_registry(home))
    taken = status_cache.taken(home, line, index)
    if replace:
        _free(line, name, taken, index.known(), known)
    return taken


def _unknown_to(base: str, pictures: list[Path]) -> list[str]:
    """What is to be said of pictures that a base cannot draw. base: "" where none is known."""
    from components.runtime.domain_warning import warning

    said = warning(base, pictures) if base else ""
    return [said] if said else []


def learner_of(home: Home, line: str, records: "Records", asked: str) -> str:
    """The base that the line learns on; "" where it is not to be found.

    That is said when the line is to learn: the upload is good.
    """
    from components.runtime.recipes import base_of

    try:
        return base_of(home, line, records.state().recipe, asked, fixed=False)
    except BadBase:
        return ""


def _resolution(base: str) -> int:
    """Side of a base's pictures in pixels; 0 where it does not lie on this machine."""
    from l2dm.bases.folder import locate, resolution, source_of

    try:
        return resolution(locate(base)) if source_of(base) in ("shipped", "folder") else 0
    except (BadBase, OSError):
        return 0


def _free(
    line: str,
    name: str,
    taken: dict[str, str],
    learned: Mapping[str, int],
    state: "ConceptState | None",
) -> None:
    """Take from the names that are taken the one that is taught anew. Raises BadUpload."""
    from components.services.line.ledger import ENDINGS

    if name not in learned:
        raise BadUpload(
            f"concept {name!r}: expected one that line {line!r} knows, because --replace teaches "
            f"it anew, found {sorted(learned) or 'none'}; leave out --replace"
        )
    if state is None or state.state in ENDINGS:  # else its last upload is still to be learned
        del taken[name]
