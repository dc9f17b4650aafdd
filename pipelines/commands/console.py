"""What a person sees: progress with rate and remaining time in a terminal, plain lines elsewhere.

Progress goes to standard error, results to standard output, so that scripts can read them.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from components.services.line.run_journal import Cost, Progress
from pipelines.dispatcher.learn_line import Learned
from pipelines.places.run_here import Listener

PLAIN_SECONDS = 5.0  # between plain lines of one step


class Rate(ProgressColumn):
    """Units per second; nothing before there are two of them."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def out(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def out_json(value: Any) -> None:
    """The result for a script."""
    out(json.dumps(value, indent=1))


def out_json_line(value: Any) -> None:
    """One of many results for a script, on a line of its own."""
    out(json.dumps(value))


def note(text: str) -> None:
    """A line that is not part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def watching(title: str) -> Iterator[Listener]:
    """A listener for the progress of one run."""
    if not sys.stderr.isatty():
        yield _plain(title)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        rows: dict[str, Any] = {}

        def listen(progress: Progress) -> None:
            step = progress.step
            if step not in rows:
                rows[step] = bars.add_task(f"{title} {step}", total=None, text="")
            total = progress.total or None
            bars.update(rows[step], completed=progress.done, total=total, text=progress.text)

        yield listen


def _plain(title: str) -> Listener:
    """Plain lines: begin and end of every step, and every few seconds between with the rate."""
    began: dict[str, float] = {}
    said: dict[str, float] = {}

    def listen(progress: Progress) -> None:
        now, step = time.monotonic(), progress.step
        first = step not in began
        began.setdefault(step, now)
        over = progress.done == progress.total
        if not first and not over and now - said[step] < PLAIN_SECONDS:
            return
        said[step] = now
        note(f"{title} {step}: {progress.text}{_pace(progress, now - began[step])}")

    return listen


def _pace(progress: Progress, seconds: float) -> str:
    if progress.total <= 1 or not seconds:
        return ""
    rate = progress.done / seconds
    left = (progress.total - progress.done) / rate if rate else 0.0
    return f"  {progress.done}/{progress.total}  {rate:.1f}/s  {left:.0f} s left"


def tell_learned(line: str, learned: Learned) -> None:
    """How one upload ended, with its reasons and its cost."""
    concept = learned.concept
    version = f" as version {concept.version}" if concept.version else ""
    out(f"{line}/{concept.name}: {concept.state}{version}")
    for reason in concept.reasons:
        out(f"  - {reason}")
    if learned.costs:
        for step, cost in learned.costs.items():
            out(f"  {step:<18}{cost.seconds:8.1f} s {cost.peak_mb:8.0f} MB")
        out(f"  {'platform':<18}{learned.overhead:8.1f} s   of {learned.wall:.1f} s in all")


def learned_data(learned: Learned) -> dict[str, Any]:
    """The same for a script."""
    concept, costs = learned.concept, learned.costs or {}
    return {
        "concept": concept.name,
        "state": concept.state,
        "version": concept.version,
        "reasons": list(concept.reasons),
        "seconds": round(learned.wall, 3),
        "platform_seconds": round(learned.overhead, 3),
        "costs": {step: _cost(cost) for step, cost in costs.items()},
    }


def tell_status(
    lines: Sequence[Mapping[str, Any]], busy: Mapping[str, str], checked: Mapping[str, str]
) -> None:
    """Lines, versions, aliases and concepts as tables; who learns a line, its last check."""
    console = Console()
    if not lines:
        out("no lines yet; begin with `l2dm submit`, or try `l2dm demo`")
    for line in lines:
        aliases = ", ".join(
            f"{alias} {line[alias]}"
            for alias in ("champion", "challenger", "previous")
            if line[alias]
        )
        table = Table(title=f"{line['name']}: {aliases or 'no version yet'}", title_justify="left")
        for column in ("concept", "class noun", "state", "version", "reasons"):
            table.add_column(column, overflow="fold")
        for concept in line["concepts"]:
            table.add_row(
                concept["name"],
                concept["class_noun"],
                concept["state"],
                str(concept["version"] or ""),
                "\n".join(concept["reasons"]),
            )
        console.print(table)
        if line["name"] in checked:
            out(checked[line["name"]])
        if line["name"] in busy:
            out(f"being learned by {busy[line['name']]}")


def tell_evaluation(found: Mapping[str, Any]) -> None:
    """The champion's fresh means, one concept per line."""
    means: Mapping[str, Mapping[str, float]] = found["row"]["means"]
    table = Table(title=f"{found['line']}: version {found['version']}, seed {found['seed']}")
    concepts = list(next(iter(means.values()), {}))
    for column in ("concept", *means):
        table.add_column(column)
    for concept in concepts:
        table.add_row(concept, *(f"{of[concept]:.3f}" for of in means.values()))
    Console().print(table)


def tell_check(found: Mapping[str, Any]) -> None:
    """What a check found, one sentence a concept, and what followed."""
    cause = f" (cause: {found['cause']})" if found["cause"] else ""
    out(f"{found['line']}: version {found['version']} is {found['health']}{cause}")
    for sentence in dict.fromkeys((*found["reasons"], *found["concepts"])):
        out(f"  - {sentence}")
    if found["champion"] != found["version"]:
        out(f"version {found['champion']} is the champion now; see `l2dm history`")


def tell_history(events: Sequence[Mapping[str, Any]]) -> None:
    """One line per event: number, time, who, what, and its facts."""
    told = ("number", "at", "by", "kind", "id")
    for event in events:
        facts = [f"{name}={value}" for name, value in event.items() if name not in told and value]
        head = f"{event['number']:6d}  {event['at']}  {event['by']}  {event['kind']}"
        out("  ".join([head, *facts]))


def _cost(cost: Cost) -> dict[str, float]:
    return {"seconds": cost.seconds, "peak_mb": cost.peak_mb}
