"""The report of a line, and what MLflow says of its versions: written again whenever either moves.

After a task, after a check, and after a rollback: all of them then tell of the same champion.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from components.runtime.step import Step
from components.services.line.ledger import Event
from components.services.line.records import Records
from components.services.line.status_cache import Index
from components.services.store.home import Home
from components.services.tracking import runs
from components.services.tracking.registry import Registry, VersionState, require_whole
from l2dm.errors import BadDoor, L2dmError, TrackingFailed, words

log = logging.getLogger(__name__)
LOOKED_BACK = 300  # events among which the report looks: each is a request
REPORTED = 12  # latest versions in the report: its cost stays flat however long the line is


def write_report(step: Step, registry: Registry, html: Path, task: str) -> None:
    """The report of the line: for the pipeline's page, for the run, and in the state folder.

    task: the one whose costs are still to be recorded, "" when there is none.
    """
    line = step.subject.line
    costs = {name: asdict(cost) for name, cost in step.costs().items()} if task else {}
    text = _text(step.home, registry, line, task, costs)
    _file(text, line, lambda named: step.tracking.file(named, ""))
    html.write_text(text, encoding="utf-8")
    step.home.store.write(step.home.report(line), text.encode())


def renew_report(home: Home, registry: Registry, line: str, task: str) -> None:
    """The report after the champion moved by hand; also in the run of a task.

    task: whose run is looked at for the line as it is. What keeps it from being written is told and
    nothing else: the champion has moved, and a rollback is no failure for it.
    """
    try:
        text = _text(home, registry, line, "", {})
        home.store.write(home.report(line), text.encode())
        _file(text, line, lambda named: runs.file(home, line, task, named))
    except (L2dmError, OSError) as error:
        log.warning("line %s: its report is of before: %s", line, words(error))


def tell_champion(registry: Registry, line: str, index: Index) -> None:
    """Let the registry say in words what the champion knows, and what became of every version.

    A registry that refuses it has everything by its aliases: that is told and nothing else.
    """
    descent = {version.number for version in index.descent()}
    states: dict[int, VersionState] = {}
    for version in index.versions:
        number, is_open = version.number, version.facts.open
        states[number] = "promoted" if number in descent else "taken back" if is_open else "held"
    known = index.known()
    lost = {
        version.facts.concept: version.number
        for version in index.versions
        if states[version.number] == "taken back" and version.facts.concept not in known
    }
    try:
        registry.tell(line, index.aliases.get("champion", 0), known, lost, states)
    except TrackingFailed as error:
        log.warning("line %s: the registry still tells of another champion: %s", line, error)


def _text(
    home: Home, registry: Registry, line: str, task: str, costs: Mapping[str, Mapping[str, float]]
) -> str:
    """The page. costs: of the steps of a task that are still to be recorded."""
    from l2dm.reporting.report import render

    recent = tuple(islice(Records(home.store, line).latest(), LOOKED_BACK))
    with tempfile.TemporaryDirectory() as scratch:
        history = list(_history(registry, line, Path(scratch)))
        spent, checks = _step_costs(recent, task, costs), _checks(recent)
        return render(line, history, spent, checks, _warnings(recent))


def _file(text: str, line: str, keep: Callable[[Path], None]) -> None:
    """Hand the page over as a file; the tracking server shows it under its name."""
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(scratch) / f"{line}.html"
        named.write_text(text, encoding="utf-8")
        keep(named)


def _history(registry: Registry, line: str, scratch: Path) -> Iterator[Any]:
    """The latest versions and those with an alias, as the report takes them, oldest first.

    One whose files were changed or are gone is left out: a check tells of it, the others are worth
    a page. Raises TrackingFailed when the registry does not answer.
    """
    from l2dm.reporting.report import ReportEntry

    aliases, versions = registry.aliases(line), registry.versions(line)
    latest = {version.number for version in versions[-REPORTED:]}
    for number in sorted(latest | set(aliases.values())):
        named = tuple(alias for alias, target in aliases.items() if target == number)
        try:
            release = registry.fetch(line, number, scratch / str(number))
            door = require_whole(release, line, number)
        except (BadDoor, TrackingFailed) as error:
            registry.versions(line)  # raises where it is the server that does not answer
            log.warning("version %d is left out of the report: %s", number, error)
            continue
        yield ReportEntry(number, door, named)


def _step_costs(
    recent: Sequence[Event], task: str, costs: Mapping[str, Mapping[str, float]]
) -> list[Any]:
    """What the steps of the latest tasks took: past ones from the records, then this task's.

    recent: the latest events, newest first.
    """
    from l2dm.reporting.report import StepCost

    past = [e.facts for e in recent if "costs" in e.facts and e.facts["task"] != task]
    ended = past[: REPORTED - 1][::-1]
    if task:
        ended.append({"task": task, "costs": costs})
    return [
        StepCost(facts["task"], name, cost["seconds"], int(cost["peak_mb"] * 1e6))
        for facts in ended
        for name, cost in facts["costs"].items()
    ]


def _warnings(recent: Sequence[Event]) -> dict[str, str]:
    """What was said of the pictures of each concept when its last task began."""
    begun = [event.facts for event in reversed(recent) if event.kind == "begun"]
    said = {facts["concept"]: facts.get("warnings", []) for facts in begun}
    return {concept: " ".join(sentences) for concept, sentences in said.items() if sentences}


def _checks(recent: Sequence[Event]) -> list[Any]:
    """What the latest checks found, oldest first. recent: the latest events, newest first."""
    from l2dm.reporting.report import PastCheck

    return [
        PastCheck(
            at=event.facts["at"],
            version=event.facts["version"],
            health=event.facts["health"],
            cause=event.facts["cause"],
            scores=event.facts["scores"],
            reasons=tuple(event.facts["reasons"]),
        )
        for event in reversed(recent)
        if event.kind == "checked"
    ]
