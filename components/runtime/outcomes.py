"""What a task's run, the records and the registry learn from a step: begun, scored, published."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape as html_escape
from pathlib import Path
from typing import Any, TypeGuard

from components.runtime.domain_warning import warning
from components.runtime.line_report import tell_champion, write_report
from components.runtime.recipes import recipe_of
from components.runtime.step import Step
from components.services.line import status_cache
from components.services.line.ledger import ENDINGS, ConceptState, Ending
from components.services.line.promotion import require_parent, settle
from components.services.line.recipe import Asked
from components.services.line.records import Records
from components.services.line.uploads import Commitment
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import (
    Registry,
    VersionFacts,
    copy_release,
    facts_of,
    fetch_whole,
    require_version,
)
from l2dm import doors, escape
from l2dm.doors import SIGNS, closed_by, marked
from l2dm.errors import TrackingFailed
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door
from l2dm.spec import resolved

log = logging.getLogger(__name__)
MODEL_CODE = Path(__file__).with_name("pyfunc.py")  # mlflow copies it with every version


def begin(step: Step, parent: str, empty_release: Callable[..., Any]) -> Any:
    """Fix task id and parent release; returns the `l2dm.steps.Context` of the task.

    The upload is fetched. The parent is the champion, fetched to `parent`, without the concept if
    the upload teaches that anew, or an empty release. A task that was begun before a kill keeps its
    id and its parent, even when the champion moved meanwhile.
    """
    line, concept = step.subject.line, step.subject.concept
    records = Records(step.home.store, line)
    known, registry = records.concept(concept), _registry(step)
    _require_recipe(step, records)
    if _begun(known, step.looked.digest):
        task, version = known.task, known.parent_version
    else:
        task, version = records.next_task(), records.state().standing.champion
    if version:
        fetch_whole(registry, line, version, Path(parent))
        if step.looked.replaces:
            _take_out(Path(parent), concept)
    else:
        empty_release(Path(parent), line, step.base)
    return step.context_for(task, version)


def accept(step: Step, door: Door[doors.Task]) -> None:
    """Record that a task has begun, once, and log its settings."""
    task, digest = door.record, step.looked.digest
    records = Records(step.home.store, task.line)
    known, said = records.concept(task.concept.name), _warnings(step, door)
    if not _begun(known, digest):
        records.append(
            "begun",
            concept=task.concept.name,
            class_noun=task.concept.class_noun,
            task=task.id,
            parent_version=task.parent_version,
            upload=digest,
            mark=step.looked.mark,
            **({"warnings": said} if said else {}),
            recipe=asdict(recipe_of(step.home, step.spec, step.settings.base, task.base)),
        )
    step.subject = replace(step.subject, task=task)
    step.tell({"pictures": len(task.pictures), "parent_version": task.parent_version})
    step.tracking.params({"base": step.settings.base, **dict(_flat(resolved(step.spec)))})
    step.tracking.tags(
        {
            "l2dm.task_index": task.id,
            "l2dm.concept": task.concept.name,
            "l2dm.concept_sha256": digest,
            "l2dm.parent_version": str(task.parent_version),
            **({"l2dm.warning": " ".join(said)} if said else {}),
            "mlflow.note.content": escape.markdown(task.concept.phrase)
            + f", from version {task.parent_version}",
        }
    )


def _warnings(step: Step, door: Door[doors.Task]) -> list[str]:
    """What is to be said of these pictures on this base, for the record and the report."""
    task = door.record
    said = warning(step.base, [door.path(name) for name in task.pictures])
    moved = [
        (name, box) for name, box in zip(task.pictures, task.crops, strict=False) if any(box[:2])
    ]
    boxes = ", ".join(f"{Path(name).name} from {box[:2]} to {box[2:]}" for name, box in moved)
    cropped = f"Of these pictures only a square is learned, in pixels of the uploaded one: {boxes}."
    return [*([said] if said else []), *([cropped] if moved else [])]


def record_scores(step: Step, door: Door[doors.Scores], summary: str) -> None:
    """Log the new row and its pictures; write the row as a table in Markdown."""
    scores, at = door.record, len(door.record.rows) - 1
    row = scores.rows[-1]
    measured = door_files.read_measurements(door)
    step.tell(new_row(scores, measured))
    step.measure(dict(_points(scores, measured)), at)
    for sheet in door_files.row_sheets(door, row):
        step.tracking.file(sheet, f"{door_files.SHEETS}/{row}")
    Path(summary).write_text(table(scores), encoding="utf-8")


def publish(
    step: Step, fence: int, door: Door[doors.Release], scores: str, report: str, summary: str
) -> None:
    """Register the release, move the aliases as its verdict says, and record how the task ended.

    fence: number of the lease under which it was learned. Raises LostLease.
    """
    step.require_lease(fence)
    line, facts = door.record.line, _facts(door, manifest.read(Path(scores), doors.Scores))
    registry, records = _registry(step), Records(step.home.store, line)
    require_parent(registry, records, line, facts)
    status_cache.forget(step.home, line)

    def crown() -> tuple[VersionFacts, int, bool]:
        version = registry.register(line, door.folder, facts)
        found = require_version(registry, line, version).facts  # perhaps of this task's other run
        return found, version, settle(registry, records, line, version, step.hold_lease)

    facts, version, crowned = step.patiently(crown)
    Path(summary).write_text(verdict_text(facts, version, crowned), encoding="utf-8")
    step.tell({"version": version, "champion": float(crowned)})
    _mark(step, facts, version, crowned)
    _report(step, registry, Path(report), facts.task)
    step.close()
    # Last: once the records say that the task has ended, nothing before this line runs again.
    _end(step, records, facts, version, "promoted" if crowned else "held")
    _clear(step.home, records, line)
    try:
        tell_champion(registry, line, status_cache.refresh(step.home, registry, line))
    except TrackingFailed as error:  # whoever asks for the status next asks the registry
        log.warning("line %s: the registry is read later: %s", line, error)


def _facts(door: Door[doors.Release], rows: Door[doors.Scores]) -> VersionFacts:
    """What the registry is told of a release. rows: its scores."""
    facts = facts_of(door)
    assert facts is not None
    return replace(facts, scores=new_row(rows.record, door_files.read_measurements(rows)))


def _mark(step: Step, facts: VersionFacts, version: int, crowned: bool) -> None:
    """Let the run say what became of its task, and what closed the gate."""
    step.tracking.tags(
        {
            "l2dm.version": str(version),
            "l2dm.state": "promoted" if crowned else "held",
            "l2dm.closed_by": ", ".join(closed_by(facts.findings)),
        }
    )


def _report(step: Step, registry: Registry, html: Path, task: str) -> None:
    """The report, or why there is none: the version stands, and nothing is learned again for it."""
    try:
        write_report(step, registry, html, task)
    except TrackingFailed as error:
        log.warning("line %s: its report is of before: %s", step.subject.line, error)
        html.write_text(f"<p>The report could not be made: {html_escape(str(error))}</p>\n")


def new_row(scores: doors.Scores, measurements: Sequence[doors.Measurement]) -> dict[str, float]:
    """The new concept's scores, mean prior drift and the worst drop of a past concept.

    measurements: the door's; a drop is that of the pictures that both rows drew, as at the gate.
    """
    found = {name: matrix[-1][-1] for name, matrix in scores.matrices.items()}
    drift = [one.distance for one in scores.drift if one.row == scores.rows[-1]]
    found["prior_drift"] = sum(drift) / len(drift) if drift else None
    drops = [drop for _, drop in _drops(scores, measurements)]
    found["forgetting"] = max(drops) if drops else None
    return {name: value for name, value in found.items() if value is not None}


def table(scores: doors.Scores) -> str:
    """The new row of every matrix, one concept per line, in Markdown."""
    names = list(scores.matrices)
    lines = [f"| concept | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for column, concept in enumerate(scores.concepts):
        cells = [_cell(scores.matrices[name][-1][column]) for name in names]
        lines.append(f"| {escape.markdown(concept.phrase)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def verdict_text(facts: VersionFacts, version: int, crowned: bool) -> str:
    """The verdict in Markdown."""
    outcome = "is the champion now" if crowned else "is held as challenger"
    reasons = "".join(
        f"* {SIGNS[passed]}{escape.markdown(reason)}\n"
        for passed, reason in marked(facts.reasons, facts.findings)
    )
    return f"**Version {version}** ({facts.concept}, {facts.task}) {outcome}.\n\n{reasons}"


def _take_out(parent: Path, concept: str) -> None:
    """Let a concept that is taught anew be learned from a parent that does not know it.

    The same parent gives the same bytes, so a run that died goes on with it.
    """
    from l2dm.releases.without import known, without

    if concept in known(parent):
        with tempfile.TemporaryDirectory(dir=parent.parent) as scratch:
            left = without(parent, concept, Path(scratch) / "left").folder
            copy_release(left, parent)


def _require_recipe(step: Step, records: Records) -> None:
    """Whoever started this run may have looked at the line before its first task. Raises BadSpec.

    The base is compared by `l2dm.steps.intake`, which has it at hand.
    """
    from l2dm.spec import kept

    ledger = records.state()
    if ledger.recipe is None or not ledger.standing.champion:
        return
    given = tuple(f"{key}={json.dumps(value)}" for key, value in kept(step.spec).items())
    Asked(settings=given).spec(step.subject.line, ledger.recipe, fixed=True)


def _begun(known: ConceptState | None, upload: str) -> TypeGuard[ConceptState]:
    """Whether this upload has a task already that did not end: a run that died goes on with it."""
    return (
        known is not None
        and known.task != ""
        and known.upload == upload
        and known.state not in ENDINGS
    )


def _registry(step: Step) -> MlflowRegistry:
    return MlflowRegistry(step.home, step.settings.base, MODEL_CODE)


def _end(step: Step, records: Records, facts: VersionFacts, version: int, state: Ending) -> None:
    found, known = step.uploads.commitment(facts.concept), records.concept(facts.concept)
    if known is not None and known.task == facts.task:
        found = Commitment(known.upload, known.mark)
    ended = ConceptState(
        facts.concept,
        facts.class_noun,
        state,
        version=version,
        reasons=facts.reasons,
        findings=facts.findings,
        task=facts.task,
        upload=found.digest,
        mark=found.mark,
    )
    costs = {name: asdict(cost) for name, cost in step.costs().items()}
    records.end(ended, scores=dict(facts.scores), costs=costs)


def _clear(home: Home, records: Records, line: str) -> None:
    """Remove checkpoints of uploads that have ended: of what pods share, nobody else can."""
    for state in records.concepts():
        if state.state in ENDINGS:
            shutil.rmtree(home.work(line, state.name), ignore_errors=True)


def _drops(
    scores: doors.Scores, measurements: Sequence[doors.Measurement]
) -> Iterator[tuple[str, float]]:
    """How far each past concept fell below its best row, as the gate and the report count it."""
    from l2dm.metrics.forgetting import by_cell, drops

    metric, names = "identity_similarity", [concept.name for concept in scores.concepts]
    cells = by_cell(measurements, metric)
    for name, found in zip(
        names, drops(scores.matrices[metric], scores.rows, names, cells), strict=True
    ):
        if found is not None:
            yield name, found.amount


def _points(
    scores: doors.Scores, measurements: Sequence[doors.Measurement]
) -> Iterator[tuple[str, float]]:
    for metric, matrix in scores.matrices.items():
        for column, concept in enumerate(scores.concepts):
            value = matrix[-1][column]
            if value is not None:
                yield f"eval/{concept.name}/{metric}", value
    for name, value in new_row(scores, measurements).items():
        yield f"eval/{name}", value
    for name, amount in _drops(scores, measurements):
        yield f"forget/{name}/identity_similarity", amount
    for one in scores.drift:
        if one.row == scores.rows[-1]:
            yield f"drift/{one.noun.replace(' ', '_')}/distance", one.distance


def _flat(values: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
