"""How an upload ends or is given back without a step: badly, cancelled, after a death; sweeping."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from components.services.line import status_cache
from components.services.line.leases import Leases
from components.services.line.ledger import ENDINGS, ConceptState, Ending, Ledger
from components.services.line.promotion import repair
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.line.uploads import Commitment, Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry, require_version
from l2dm.errors import Conflict, L2dmError, LineBusy, UnknownLine

if TYPE_CHECKING:
    from components.services.tracking.runs import Tracking

RUN_ENDS: Mapping[str, str] = {"failed": "FAILED", "refused": "FAILED", "cancelled": "KILLED"}


def end_badly(
    home: Home,
    line: str,
    concept: str,
    failure: Failure | None,
    text: str,
    *,
    after: int | None = None,
    looked: Commitment | None = None,
) -> ConceptState:
    """Record `refused` with the reasons, or `failed` with step and error.

    It is the end of the upload that the records say was tried, whatever lies in its place now.
    text: what is known when no step could say why. after: number of the event that must be the
    last one, or Conflict is raised. looked: what was there before it was tried, where no event
    names it; else what is there. Raises L2dmError when the upload had ended already and only
    what comes after failed.
    """
    state, reasons = _badly(failure, text)
    step = failure.step if failure else None
    return _end(home, line, concept, state, reasons, step=step, after=after, looked=looked)


def end_as_cancelled(home: Home, line: str, concept: str, why: str, *, after: int) -> ConceptState:
    """Record `cancelled`, with who and why: nothing was wrong with it, and nothing has failed.

    after: as for `end_badly`. Raises Conflict, L2dmError.
    """
    return _end(home, line, concept, "cancelled", (why,), step=None, after=after, looked=None)


def _end(
    home: Home,
    line: str,
    concept: str,
    state: Ending,
    reasons: tuple[str, ...],
    *,
    step: str | None,
    after: int | None,
    looked: Commitment | None,
) -> ConceptState:
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    known = records.concept(concept)
    found = _tried(known, looked) or looked or uploads.commitment(concept)
    if known and known.state in ENDINGS and known.upload == found.digest:
        raise L2dmError(
            f"concept {concept!r} was {known.state} as version {known.version}, but "
            f"what comes after failed: {'; '.join(reasons)}"
        )
    there = uploads.digest(concept) == found.digest
    noun = uploads.class_noun(concept) if there else known.class_noun if known else ""
    task = known.task if known and known.state not in ENDINGS else ""
    ended = ConceptState(
        concept, noun, state, reasons=reasons, task=task, upload=found.digest, mark=found.mark
    )
    if after is None:
        records.end(ended, step=step)
    else:
        records.end_next(after, ended, step=step)
    close_run(home, line, task, RUN_ENDS[state])
    return ended


def close_run(home: Home, line: str, task: str, state: str) -> None:
    """Close the run of a task that became no version: it would say for ever that it is running.

    task: "" when none was begun. What the tracking server answers changes nothing of the end: what
    could not be told is kept, and told again with the line's next task.
    """
    from components.services.tracking import runs
    from components.services.tracking.untold import TRIED, PatientTracking

    if not task:
        return
    try:
        runs.close(home, line, task, state)
    except TRIED as error:
        failed = error
    else:
        return

    def opened() -> "Tracking":
        raise failed

    later = PatientTracking(opened)
    later.finish(state)
    later.keep(home.store, line, task, "end")


def _badly(failure: Failure | None, text: str) -> tuple[Ending, tuple[str, ...]]:
    """The state that an upload ends in without a release, and why."""
    if failure is None:
        return "failed", (text,)
    if failure.kind == "BadUpload":
        return "refused", failure.problems
    return "failed", tuple(
        f"step {failure.step}: {failure.kind}: {one}" for one in failure.problems
    )


def _tried(known: ConceptState | None, looked: Commitment | None) -> Commitment | None:
    """The upload that the records say was tried; None where they name none that is open."""
    if known is None or not known.upload or known.state in ENDINGS:
        return None
    if looked is not None and known.state != "learning":
        return None
    return Commitment(known.upload, known.mark)


def give_back(records: Records, concept: str, reasons: Sequence[str], step: str = "") -> None:
    """Record why an upload that nobody is to blame for waits, unless its state says so already.

    step: the one that could not go on; "" where none was started.
    """
    known = records.concept(concept)
    if known and (known.state, known.reasons) == ("waiting", tuple(reasons)):
        return
    facts = {"concept": concept, "run": "", "step": step or None, "anew": False, "pause": 0.0}
    records.append("retried", **facts, reasons=list(reasons))


def cancel(home: Home, line: str, concept: str, reason: str) -> bool:
    """End an upload that waits or is being learned as `cancelled`, with who and why.

    True when it has ended; False when a dispatcher that learns on this line ends it at its next
    look. Raises UnknownLine when there is no such upload, L2dmError when it has ended.
    """
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    while True:
        ledger, found = records.state(), uploads.commitment(concept)
        digest = found.digest
        known = ledger.concepts.get(concept)
        if not digest and (known is None or known.state in ENDINGS):
            raise UnknownLine(
                f"expected an upload of concept {concept!r} in line {line!r}, found none; see "
                "`l2dm status` for what waits"
            )
        if known and known.state in ENDINGS and known.upload == digest:
            raise L2dmError(
                f"expected concept {concept!r} of line {line!r} to wait or to be learned, found "
                f"that it was {known.state}; `l2dm rollback` takes a version back"
            )
        facts = {"concept": concept, "upload": digest, "mark": found.mark, "reason": reason}
        try:
            records.append_next(ledger.last, "cancelled", **facts)
        except Conflict:  # something happened since: perhaps its end
            continue
        return _end_now(home, records, line, concept)


def _end_now(home: Home, records: Records, line: str, concept: str) -> bool:
    """End it here and now unless somebody learns on this line."""
    if records.state().active is not None:
        return False  # under a lease that a dispatcher takes over with its run: leave it alone
    try:
        with Leases(home.store).held(line):
            ledger = records.state()
            if ledger.active is not None:  # started meanwhile
                return False
            unwanted = cancelled(Uploads(home.store, line), ledger, [concept])
            end_cancelled(home, line, unwanted, ledger.last)
            return bool(unwanted)
    except (LineBusy, Conflict):
        return False


def cancelled(uploads: Uploads, ledger: Ledger, waiting: Iterable[str]) -> dict[str, str]:
    """Those of the waiting uploads that somebody wants to end, with who and why."""
    asked = [state for name in waiting if (state := ledger.concepts.get(name)) and state.cancelled]
    # other pictures under the same name are another upload
    return {one.name: one.cancelled for one in asked if one.upload == uploads.digest(one.name)}


def end_cancelled(home: Home, line: str, unwanted: Mapping[str, str], last: int) -> None:
    """End waiting uploads as `cancelled`, with who wished it and why. Raises Conflict."""
    for number, (name, why) in enumerate(unwanted.items()):
        end_as_cancelled(home, line, name, why, after=last + number)


def land(home: Home, registry: Registry, records: Records, line: str, concept: str) -> None:
    """End an upload whose promotion is recorded, and whose run died before its end was."""
    ledger = records.state()
    state = ledger.concepts[concept]
    version = ledger.version_of(state.task) or 0
    status_cache.forget(home, line)
    repair(registry, records, line)
    facts = require_version(registry, line, version).facts
    ended = ConceptState(
        concept,
        facts.class_noun,
        "promoted",
        version=version,
        reasons=facts.reasons,
        findings=facts.findings,
        task=state.task,
        upload=state.upload,
    )
    records.end(ended, scores=dict(facts.scores))


def sweep(home: Home, line: str, concept: str) -> None:
    """Remove checkpoints and the doors of a finished run: the release is in the registry."""
    shutil.rmtree(home.work(line, concept), ignore_errors=True)
    shutil.rmtree(home.run(line, concept) / "pipeline", ignore_errors=True)
