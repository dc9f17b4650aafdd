"""Aliases that somebody moved by hand, noticed on lines where nothing happens, at small cost."""

import logging
import time
from collections.abc import Callable, Mapping

from components.services.line.ledger import Ledger, Standing
from components.services.tracking.registry import Registry
from l2dm.errors import L2dmError, words

log = logging.getLogger(__name__)


class AliasDrift:
    """Compares every alias with the records, with few requests for any number of lines.

    A difference counts when it is there twice: a promoter may be between record and alias. every:
    seconds between two comparisons.
    """

    def __init__(self, registry: Callable[[], Registry], every: float) -> None:
        self._registry, self._every = registry, every
        self._suspects: set[str] = set()
        self._last = -float("inf")

    def wrong(self, ledgers: Mapping[str, Ledger]) -> tuple[str, ...]:
        """Lines whose aliases are wrong for the second time; none while it is too early to ask."""
        if time.monotonic() < self._last + self._every:
            return ()
        self._last = time.monotonic()
        learned = {line: ledger.standing for line, ledger in ledgers.items() if ledger.tasks}
        try:
            found = self._registry().every_alias() if learned else {}
        except (L2dmError, OSError) as error:
            log.warning("the aliases are not compared: %s", words(error))
            return ()
        differ = {
            line
            for line, standing in learned.items()
            if standing != Standing(**{str(k): v for k, v in found.get(line, {}).items()})
        }
        twice, self._suspects = sorted(differ & self._suspects), differ
        return tuple(twice)
