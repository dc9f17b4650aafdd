"""Uploads that were given back: each waits before it is tried again, longer every time.

The time of an event is the store's, so the clocks of several dispatchers need not agree.
"""

from collections.abc import Callable

from components.services.line.ledger import Event
from components.services.line.records import Records

LONGEST = 600.0  # seconds between two attempts


class Retries:
    """When the upload that a line gave back last comes again. clock: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._given_back: dict[str, tuple[int, float]] = {}  # which event, when by our clock

    def begin(self, line: str, event: Event) -> None:
        """It was given back just now."""
        self._given_back[line] = (event.number, self._clock())

    def lasts(self, line: str, concept: str, records: Records) -> bool:
        """Whether the upload was given back and its time has not come. Raises BadStore."""
        pause = records.state().pauses.get(concept)
        if pause is None:
            return False
        if self._given_back.get(line, (0, 0.0))[0] != pause.event:
            at = self._clock() - records.age(pause.event)
            self._given_back[line] = (pause.event, at)
        return self._clock() < self._given_back[line][1] + pause.seconds


def seconds(backoff: float, attempt: int) -> float:
    """How long an upload waits after its attempt-th try, from 1: doubled each time, to a limit."""
    return min(backoff * 2.0 ** min(attempt - 1, 30), LONGEST)
