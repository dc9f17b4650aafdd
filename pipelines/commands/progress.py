"""Progress of a run: bars with rate and remaining time in a terminal, plain lines elsewhere.

All of it goes to standard error, so that scripts can read the results.
"""

import sys
import time
from collections.abc import Iterator
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
from rich.text import Text

from components.services.line.run_journal import StepProgress
from l2dm import escape
from pipelines.commands.output import note
from pipelines.places.run_here import Listener

PLAIN_SECONDS = 5.0  # between plain lines of one step


class Rate(ProgressColumn):
    """Units per second; nothing before there are two of them."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


@contextmanager
def watching(title: str) -> Iterator[Listener]:
    """A listener for the progress of one run."""
    if not sys.stderr.isatty():
        yield _plain(title)
        return
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        rows: dict[str, Any] = {}

        def listen(progress: StepProgress) -> None:
            step = progress.step
            if step not in rows:
                rows[step] = bars.add_task(escape.line(f"{title} {step}"), total=None, text="")
            total = progress.total or None
            text = escape.line(progress.text)
            bars.update(rows[step], completed=progress.done, total=total, text=text)

        yield listen


def _plain(title: str) -> Listener:
    """Plain lines: begin and end of every step, and every few seconds between with the rate."""
    began: dict[str, float] = {}
    said: dict[str, float] = {}

    def listen(progress: StepProgress) -> None:
        now, step = time.monotonic(), progress.step
        first = step not in began
        began.setdefault(step, now)
        over = progress.done == progress.total
        if not first and not over and now - said[step] < PLAIN_SECONDS:
            return
        said[step] = now
        note(f"{title} {step}: {progress.text}{_pace(progress, now - began[step])}")

    return listen


def _pace(progress: StepProgress, seconds: float) -> str:
    if progress.total <= 1 or not seconds:
        return ""
    rate = progress.done / seconds
    left = (progress.total - progress.done) / rate if rate else 0.0
    return f"  {progress.done}/{progress.total}  {rate:.1f}/s  {left:.0f} s left"
