"""`l2dm submit`: check pictures and commit them as an upload, which waits to be learned."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.services.store.home import Home
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
from pipelines.commands.target import open_registry

if TYPE_CHECKING:
    from components.services.line.records import Records
    from l2dm.doors import Concept
    from l2dm.spec import IntakeSpec


def submit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the concept, a slug.")],
    class_noun: Annotated[str, typer.Option("--class-noun", help='What it is, e.g. "dog".')],
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the pictures and write the upload, concept.json last."""
    from l2dm.doors import Concept
    from l2dm.spec import Spec, override

    spec = override(Spec(), settings or []).intake
    upload = submit_pictures(Home.at(home), folder, line, Concept(concept, class_noun), spec, base)
    if json:
        tell_json(upload)
    else:
        tell(f"{line}/{concept}: {len(upload['pictures'])} pictures wait to be learned")
        for sentence in upload.get("warnings", ()):
            note(f"{line}/{concept}: {sentence}")


def submit_pictures(
    home: Home, pictures: Path, line: str, concept: "Concept", spec: "IntakeSpec", base: str = BASE
) -> dict[str, Any]:
    """Check and commit an upload; an upload of this name that has ended is replaced.

    base: that the line is to learn on, "" for its own; it is only asked whether such pictures mean
    anything to it. Returns the upload as data. Raises BadUpload with every problem; nothing was
    written then.
    """
    from components.services.line import status_cache, submitted
    from components.services.line.records import Records
    from components.services.line.uploads import Uploads
    from l2dm.files import manifest
    from l2dm.uploads.folder import write_upload

    index = status_cache.read(home, line, lambda: open_registry(home))
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    since, known = records.state().last, records.concept(concept.name)
    taken = status_cache.taken(home, line, index)
    over = "" if concept.name in taken else uploads.digest(concept.name)
    if over and (known is None or known.upload != over):
        taken[concept.name] = "somebody submits it at this moment"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / concept.name
        upload = write_upload(folder, pictures, line, concept, spec, taken)
        seen = [folder / one.name for one in upload.pictures]
        said = _warning(home, line, records, base, seen)
        uploads.commit(folder, over)
    submitted.record(records, concept, known, upload=uploads.digest(concept.name), since=since)
    data: dict[str, Any] = manifest.to_data(upload)
    return data | ({"warnings": [said]} if said else {})


def _warning(home: Home, line: str, records: "Records", asked: str, pictures: list[Path]) -> str:
    """What to say of these pictures on the base that the line learns on; "" for nothing."""
    from components.runtime.domain_warning import warning
    from components.runtime.recipes import base_of
    from l2dm.errors import BadBase

    try:
        base = base_of(home, line, records.state().recipe, asked, fixed=False)
    except BadBase:  # said when the line is to learn: the upload is good
        return ""
    return warning(base, pictures)
