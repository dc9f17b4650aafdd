"""`l2dm learn`: learn every waiting upload of a line on this machine and print how each ended."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from components.services.store.home import Home
from l2dm.doors import SIGNS, closed_by, marked
from l2dm.errors import L2dmError
from pipelines.commands.options import (
    BAD_INPUT,
    BASE,
    FAILED,
    HOME,
    BaseOption,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import note, tell, tell_json
from pipelines.commands.target import Target, require_base, require_line

if TYPE_CHECKING:
    from pipelines.dispatcher.learn_line import EndedUpload, Watch


class MethodsTold(TyperCommand):
    """The command with a list of the methods below its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See TyperCommand."""
        from l2dm.methods import registry

        super().format_options(ctx, formatter)
        with formatter.section("Methods"):
            formatter.write_dl([(name, registry.page(name).summary) for name in registry.names()])


def learn(
    line: LineOption,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="Of a line that begins; short for --set train.method=... By default gated.",
        ),
    ] = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn every waiting upload of a line, oldest first."""
    chosen = [f"train.method={method}"] if method else []
    learn_all(Target(home, line, base, (*chosen, *(settings or []))), json)


def learn_all(target: Target, json: bool) -> None:
    """Learn what waits and print each as it ends, then the report. Exits as `l2dm --help` says."""
    from pipelines.commands.progress import watching

    line, ended = target.line, []
    for learned in learn_waiting(target, lambda concept: watching(f"{line}/{concept}")):
        ended.append(learned)
        if not json:
            _tell(line, learned)
    report = report_of(target.home, line)
    if json:
        tell_json({"line": line, "concepts": [_data(one) for one in ended], "report": report})
    elif not ended:
        tell(f"{line}: nothing waits to be learned")
    elif report:
        tell(f"report: {report}")
    states = {learned.concept.state for learned in ended}
    if "failed" in states:
        raise typer.Exit(FAILED)
    if "refused" in states:
        raise typer.Exit(BAD_INPUT)


def learn_waiting(target: Target, watch: "Watch") -> Iterator["EndedUpload"]:
    """Learn every waiting upload of a line. Raises UnknownLine, LineBusy, BadSpec, BadBase."""
    from components.runtime.recipes import learned_with
    from components.services.line.records import Records
    from pipelines.dispatcher.learn_line import Learner

    home, line = target.home, target.line
    if line not in home.lines():
        _ = target.spec  # of a line that is not there: wrong settings are told first
    require_line(home, line)
    records = Records(home.store, line)
    base, spec = learned_with(home, line, records, target.asked, target.registry)
    require_base(base)
    learner = Learner(home, line, base, spec, target.registry)
    for concept in learner.waiting():
        _warn(home, line, concept, base)
    yield from learner.learn(watch)


def _warn(home: Home, line: str, concept: str, base: str) -> None:
    """Say beforehand that these pictures are none that the base can draw."""
    from components.runtime.domain_warning import warning

    with tempfile.TemporaryDirectory() as scratch:
        said = warning(base, _pictures(home, line, concept, Path(scratch) / concept))
    if said:
        note(f"{line}/{concept}: {said}")


def _pictures(home: Home, line: str, concept: str, folder: Path) -> Iterator[Path]:
    """The pictures of an upload, fetched when they are looked at; none of one that is bad.

    Anybody who may write to the inbox may have put them there, so they are checked here, too.
    """
    from components.services.line.uploads import Uploads
    from l2dm.files.concept_json import accepted_under
    from l2dm.spec import IntakeSpec
    from l2dm.uploads.folder import read_upload
    from l2dm.uploads.reader import PictureReader

    house = IntakeSpec()
    try:
        Uploads(home.store, line).fetch(concept, folder, max_bytes=house.max_bytes)
        upload = read_upload(folder)
        with PictureReader(accepted_under(upload.limits, house)) as reader:
            for picture in upload.pictures:
                reader.read(folder / picture.name)
    except L2dmError:  # the step that reads it says why
        return
    yield from (folder / picture.name for picture in upload.pictures)


def report_of(home: Home, line: str) -> str | None:
    """Path of the latest report of a line."""
    if not any(home.store.list(home.report(line))):
        return None
    return f"{home.place}/{home.report(line)}"


def _tell(line: str, learned: "EndedUpload") -> None:
    """How one upload ended, with its reasons and its cost."""
    concept = learned.concept
    version = f" as version {concept.version}" if concept.version else ""
    tell(f"{line}/{concept.name}: {concept.state}{version}")
    for passed, reason in marked(concept.reasons, concept.findings):
        tell(f"  - {SIGNS[passed]}{reason}")
    if learned.costs:
        for step, cost in learned.costs.items():
            tell(f"  {step:<18}{cost.seconds:8.1f} s {cost.peak_mb:8.0f} MB")
        tell(f"  {'platform':<18}{learned.overhead:8.1f} s   of {learned.wall:.1f} s in all")


def _data(learned: "EndedUpload") -> dict[str, Any]:
    """The same for a script."""
    concept, costs = learned.concept, learned.costs or {}
    return {
        "concept": concept.name,
        "state": concept.state,
        "version": concept.version,
        "reasons": list(concept.reasons),
        "closed_by": list(closed_by(concept.findings)),
        "seconds": round(learned.wall, 3),
        "platform_seconds": round(learned.overhead, 3),
        "costs": {
            step: {"seconds": cost.seconds, "peak_mb": cost.peak_mb} for step, cost in costs.items()
        },
    }
