"""Aliases that somebody moved by hand: found for all lines with few requests, told, set back."""

import logging
import time
from collections.abc import Callable, Mapping

from components.services.ledger import Standing
from components.services.records import Records
from components.services.registry import Registry
from l2dm.errors import L2dmError

log = logging.getLogger(__name__)

DEAF = 15.0  # seconds before a registry that did not answer is asked again


class Aliases:
    """Compares every alias with the records now and then. every: seconds between two times."""

    def __init__(self, registry: Callable[[], Registry], every: float) -> None:
        self._registry, self._every = registry, every
        self._suspects: set[str] = set()  # lines with a wrong alias when they were last compared
        self._compared = self._deaf = -float("inf")

    @property
    def unheard(self) -> bool:
        """Whether the registry did not answer a moment ago."""
        return time.monotonic() < self._deaf

    def no_answer(self) -> None:
        """Leave the registry alone for a while: every question costs its time-out."""
        self._deaf = time.monotonic() + DEAF

    def moved(self, records: Mapping[str, Records]) -> tuple[str, ...]:
        """Lines whose aliases are to be set back; none before the next time has come.

        A difference counts when it is there twice: a promoter may be between record and alias.
        """
        if self.unheard or time.monotonic() < self._compared + self._every:
            return ()
        self._compared = time.monotonic()
        known = {line: one.known for line, one in records.items() if one.known.tasks}
        try:
            found = self._registry().every_alias() if known else {}
        except (L2dmError, OSError) as error:
            self.no_answer()
            log.warning("the aliases are not compared: %s", error)
            return ()
        wrong = {
            line
            for line, ledger in known.items()
            if Standing(**{str(alias): number for alias, number in found.get(line, {}).items()})
            != ledger.standing
        }
        before, self._suspects = self._suspects, wrong
        return tuple(sorted(wrong & before))
