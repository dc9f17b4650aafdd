"""The inboxes of all lines: what waits in each. An empty one costs one short request."""

import zlib
from collections.abc import Callable

from components.services.line.ledger import Ledger
from components.services.line.uploads import Uploads
from components.services.store.home import Home


class Inboxes:
    """Kept over passes, because it knows the digests of what it saw. Times in seconds.

    whole: between two whole listings of a line's inbox. half: after its last file, until an upload
    without concept.json is given to `sweep`, with its line.
    """

    def __init__(
        self,
        home: Home,
        whole: float,
        half: float,
        clock: Callable[[], float],
        sweep: Callable[[str], None],
    ) -> None:
        self._home, self._between, self._half = home, whole, half
        self._clock, self._sweep = clock, sweep
        self._uploads: dict[str, Uploads] = {}
        self._woken: set[str] = set()
        self._next: dict[str, float] = {}

    def of(self, line: str) -> Uploads:
        """The uploads of a line."""
        return self._uploads.setdefault(line, Uploads(self._home.store, line))

    def set_aside(self) -> tuple[str, ...]:
        """Keys of folders that no concept can be called, as each line was last listed."""
        return tuple(key for uploads in [*self._uploads.values()] for key in uploads.set_aside)

    def wake(self, line: str) -> None:
        """List this inbox whole the next time: something about it is known to have changed."""
        self._woken.add(line)

    def is_due(self, line: str) -> bool:
        """Whether the inbox is to be listed whole. At first the lines are spread over the time."""
        spread = zlib.crc32(line.encode()) / 2**32 * self._between
        return self._clock() >= self._next.setdefault(line, self._clock() + spread)

    def waiting(self, line: str, ledger: Ledger) -> tuple[str, ...]:
        """Uploads that wait, oldest first; now and then from a whole listing of the inbox."""
        states, uploads = [*ledger.concepts.values()], self.of(line)
        if line in self._woken:
            self._woken.discard(line)
            return uploads.waiting(states)
        if not self.is_due(line):
            return uploads.open(states)
        if uploads.halves(self._half):
            self._sweep(line)
        found = uploads.waiting(states)
        self._next[line] = self._clock() + self._between
        return found
