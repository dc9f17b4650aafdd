"""Runs that this dispatcher watches until they have ended: swept, reported, ended when too late."""

from collections.abc import Callable

from components.services.line.checks import CONCEPT, RunningCheck
from components.services.line.ledger import Ledger, Started
from components.services.store.home import Home
from pipelines.dispatcher.due_checks import tell
from pipelines.dispatcher.end_upload import sweep
from pipelines.places.runs import Runs


class WatchedRuns:
    """One run a line at most. clock: seconds."""

    def __init__(self, home: Home, runs: Runs, clock: Callable[[], float]) -> None:
        self._home, self._runs, self._clock = home, runs, clock
        self._watched: dict[str, Started] = {}
        self._patience: dict[str, float] = {}  # until when a run may take its leave

    def add(self, line: str, run: Started) -> None:
        """Watch a run that was started, or taken over."""
        self._watched[line] = run

    def __contains__(self, line: str) -> bool:
        return line in self._watched

    def end_superseded(self, line: str, run: Started | RunningCheck | None) -> None:
        """Stop a run of ours that another dispatcher has replaced: it cannot promote any more."""
        watched = self._watched.get(line)
        if run is not None and watched is not None and run.run != watched.run:
            self._runs.stop(watched.run)
            del self._watched[line]

    def leaves(self, line: str, state: Callable[[], Ledger]) -> bool:
        """Whether the run whose end is recorded has still to leave; its scratch is swept then."""
        run = self._watched.get(line)
        if run is None:
            return False
        if self._runs.look(run.run).state == "running":
            if self._clock() < self._patience.setdefault(
                run.run, self._clock() + self._runs.patience
            ):
                return True
            self._runs.stop(run.run)
        sweep(self._home, line, run.concept)
        if run.concept == CONCEPT:
            tell(line, state())
        del self._watched[line]
        self._patience.pop(run.run, None)
        return False
