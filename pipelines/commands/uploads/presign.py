"""`l2dm presign`: an upload that somebody without credentials sends, concept.json last.

The folder is checked here as `l2dm submit` checks it, and what was checked is what may be sent: the
bytes of every picture and of concept.json are part of their signature.
"""

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from l2dm.errors import BadStore
from pipelines.commands.options import (
    BASE,
    HOME,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import note, tell_script, tell_signed
from pipelines.commands.target import Target, are_names
from pipelines.commands.uploads.submit import learner_of, taken_names, write_for

if TYPE_CHECKING:
    from components.services.line.records import Records
    from components.services.store.home import Home
    from l2dm.doors import Concept
    from l2dm.spec import IntakeSpec

LENGTH = "content-length"  # every client says it by itself


@dataclass(frozen=True)
class Request:
    """A PUT to be sent as it is. file: of the folder, whose bytes it carries; "": it has a body."""

    url: str
    headers: Mapping[str, str]
    file: str = ""
    body: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """As --json prints it."""
        what = {"file": self.file} if self.file else {"body": self.body}
        return {"method": "PUT", "url": self.url, "headers": dict(self.headers), **what}


def presign(  # noqa: PLR0913 - one parameter per option
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the concept, a slug.")],
    class_noun: Annotated[str, typer.Option("--class-noun", help='What it is, e.g. "dog".')],
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=604800, help="How long they may be sent.")
    ] = 3600,
    replace: Annotated[
        bool, typer.Option("--replace", help="Teach a concept anew that the line knows.")
    ] = False,
    home: HomeOption = HOME,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the pictures and print requests that upload them, for somebody without credentials.

    A shell script with curl; --json prints method, URL, headers and file or body of each. They are
    sent in that order. Whoever has them may send these pictures until they expire.
    """
    from l2dm.doors import Concept
    from l2dm.spec import Spec, override

    spec = override(Spec(), settings or []).intake
    named = Concept(concept, class_noun)
    target = Target(home, line, BASE)
    requests, warnings = signed_requests(target, folder, named, spec, seconds, replace=replace)
    if json:
        told = [request.data for request in requests]
        tell_signed({"line": line, "concept": concept, "seconds": seconds, "requests": told})
    else:
        tell_script(script(requests, seconds))
    for sentence in warnings:
        note(f"{line}/{concept}: {sentence}")


def signed_requests(
    target: Target,
    pictures: Path,
    concept: "Concept",
    spec: "IntakeSpec",
    seconds: int,
    *,
    replace: bool = False,
) -> tuple[tuple[Request, ...], list[str]]:
    """What to send for an upload of these pictures, in this order; nothing is written.

    What is to be said of the pictures comes second.

    replace: it teaches a concept anew that the champion knows, and takes the place of that one's
    upload as it lies there now. Raises BadUpload with every problem, BadStore where the state is in
    a folder or the store does not honour conditions.
    """
    from components.services.line.uploads import as_stored
    from components.services.store.open import probe
    from components.services.store.s3 import S3Objects
    from l2dm.files.concept_json import FILE, to_bytes
    from l2dm.uploads.captions import sort
    from l2dm.uploads.check import visible

    home, line = target.home, target.line
    store = home.store
    if not isinstance(store, S3Objects):
        raise BadStore(
            f"expected the state in s3://bucket/prefix, since nobody can send to a folder, found "
            f"{home.place}; use `l2dm submit`"
        )
    probe(store)
    taken, over, learner = _known(home, line, concept.name, replace=replace)
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch) / concept.name
        upload, warnings = write_for(
            learner, into, pictures, line, concept, spec, taken, replaces=replace
        )
    stored = as_stored(upload)
    folder, requests = f"inbox/{line}/{concept.name}/", list[Request]()
    # what was checked is listed in this order, and nothing else of the folder is read
    for path, picture in zip(sort(visible(pictures)).pictures, stored.pictures, strict=True):
        key, size = folder + picture.name, path.stat().st_size
        signed = store.presign(key, sha256=picture.sha256, size=size, expires=seconds)
        requests.append(Request(signed.url, signed.headers, file=path.name))
    body = to_bytes(stored)
    digest = _sha256(body)
    condition: dict[str, Any] = {"over": over} if over else {"new": True}
    last = store.presign(folder + FILE, sha256=digest, size=len(body), expires=seconds, **condition)
    return (*requests, Request(last.url, last.headers, body=body.decode())), warnings


def _known(home: "Home", line: str, name: str, *, replace: bool) -> tuple[dict[str, str], str, str]:
    """Names that are taken, the tag of the concept.json to replace, the base that will learn."""
    from components.services.line.records import Records

    if not are_names(line, name):  # the refusal lists all problems
        return {}, "", ""
    records = Records(home.store, line)
    return *_taken(home, line, name, records, replace=replace), learner_of(home, line, records, "")


def _taken(
    home: "Home", line: str, name: str, records: "Records", *, replace: bool
) -> tuple[dict[str, str], str]:
    """Names that cannot be submitted, with the reasons; the tag of the concept.json to replace.

    "" for an upload where none lies. Raises BadUpload where nothing is there to be taught anew.
    """
    from components.services.line.uploads import Uploads
    from l2dm.errors import Conflict

    known = records.concept(name)
    taken = taken_names(home, line, name, known, replace=replace)
    uploads = Uploads(home.store, line)
    there = uploads.digest(name)
    if name in taken or not there:
        return taken, ""
    if not replace:
        return taken | {name: "its upload has ended, and only `l2dm submit` may replace that"}, ""
    if known is not None and known.upload == there:
        with suppress(Conflict):  # another one lies there by now
            return taken, uploads.tag_of(name, there)
    return taken | {name: "somebody submits it at this moment"}, ""


def script(requests: Sequence[Request], seconds: int) -> str:
    """The same for a shell in the folder of the pictures; needs curl and no credentials."""
    return "\n".join(
        [
            "#!/bin/sh",
            f"# To be run beside the pictures within {seconds} seconds, by whoever has it.",
            "set -eu",
            *map(_curl, requests),
        ]
    )


def _curl(request: Request) -> str:
    return " ".join(shlex.quote(word) for word in _words(request))


def _words(request: Request) -> Iterator[str]:
    yield from ("curl", "--fail", "--silent", "--show-error", "--globoff", "--request", "PUT")
    for name, value in request.headers.items():
        if name != LENGTH:
            yield from ("--header", f"{name}: {value}")
    yield from ("--header", "content-type:", "--header", "expect:")  # curl's own, none of ours
    if request.file:
        yield from ("--upload-file", f"./{request.file}")
    else:
        yield from ("--data-binary", request.body)
    yield request.url


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
