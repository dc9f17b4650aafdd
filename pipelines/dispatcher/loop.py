"""When a dispatcher looks: at all lines every so often, at one at once when an event names it."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from components.services.wakeups.sources import Wakeups
from l2dm.errors import L2dmError, words
from pipelines.dispatcher.dispatcher import Moved

log = logging.getLogger(__name__)

Move = tuple[str, Moved]


class Looks(Protocol):
    """What `follow` asks of a dispatcher, or of whoever stands before one."""

    def passing(self) -> Iterator[Move | None]:
        """See Dispatcher."""
        ...

    def reconcile(self, line: str, *, whole: bool = False) -> Moved:
        """See Dispatcher."""
        ...

    def lines(self) -> frozenset[str]:
        """See Dispatcher."""
        ...


def follow(dispatcher: Looks, wakeups: Wakeups, every: float, *, once: bool) -> Iterator[Move]:
    """Look at all lines every so many seconds, at woken ones at once; each change of a line.

    once: end when nothing waits or runs. A line that an event names and nobody knows is nothing. A
    store that does not answer is told, and asked again at the next scan.
    """
    pace = _Pace(dispatcher, wakeups)
    scan, settled = 0.0, False
    while True:
        left = scan - time.monotonic()
        if left > 0:
            yield from pace.woken(left)
            if scan > time.monotonic():
                continue
        yield from pace.scan()
        scan = time.monotonic() + every
        over = set(pace.known.values()) | ({"broken"} if pace.deaf else set())
        if once and (over <= {"idle"} or (settled and over <= {"idle", "broken"})):
            return
        settled = over <= {"idle", "broken"}  # broken twice in a row: it will not mend itself


@dataclass
class _Pace:
    """What is known of the lines, and whether the store answered when all were looked at."""

    dispatcher: Looks
    wakeups: Wakeups
    known: dict[str, Moved] = field(default_factory=dict)
    deaf: bool = False

    def scan(self) -> Iterator[Move]:
        """All lines; woken ones between two others, since a pass over many takes seconds."""
        try:
            for move in self.dispatcher.passing():
                yield from self._changed(*move) if move else ()
                yield from self.woken(0.0)
        except (L2dmError, OSError) as error:
            log.error("the lines cannot be listed: %s", words(error))
            self.deaf = True
        else:
            self.deaf = False

    def woken(self, seconds: float) -> Iterator[Move]:
        """Lines that are woken within so many seconds."""
        lines = self.wakeups.wait(seconds)
        for line in sorted(lines & self._there(lines)):
            yield from self._changed(line, self.dispatcher.reconcile(line, whole=True))

    def _there(self, lines: frozenset[str]) -> frozenset[str]:
        """Lines that exist: an event may be forged, or name a line that has its first upload."""
        if lines <= self.known.keys():
            return lines
        try:
            return self.dispatcher.lines() | self.known.keys()
        except (L2dmError, OSError):  # the next scan tells
            return frozenset(self.known)

    def _changed(self, line: str, moved: Moved) -> Iterator[Move]:
        before, self.known[line] = self.known.get(line), moved
        if before != moved:
            yield line, moved
