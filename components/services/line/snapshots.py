"""`snapshots/<line>.json`: the sum of a line's events, so that a new process need not read each.

A snapshot saves time and nothing else. It names the last event that it sums, by number and mark.
All events are read if that event is gone or is another one (a restored bucket), or if the snapshot
is missing, damaged or of another release of this project.
"""

import json
import logging

from components.services.line.ledger import Ledger
from components.services.store.objects import Objects
from l2dm import __version__
from l2dm.errors import NoSuchObject, ObjectError

FORMAT = 7  # raise it whenever the same events come to mean something else
log = logging.getLogger(__name__)


def read(store: Objects, line: str) -> Ledger:
    """The sum as far as it was written down; an empty one when there is none that can be used."""
    try:
        data = json.loads(store.read(_key(line)).data)
        if (data["format"], data["code"]) == (FORMAT, __version__):
            return Ledger.from_data(data["ledger"])
    except NoSuchObject:
        pass
    except (
        *(ValueError, KeyError, TypeError, AttributeError, ObjectError, RecursionError),
    ) as error:
        log.warning("line %s: the snapshot cannot be read (%s), every event is", line, error)
    return Ledger()


def write(store: Objects, line: str, ledger: Ledger) -> None:
    """Of two writers the later one stays, even with fewer events: whoever reads it reads on."""
    data = {"format": FORMAT, "code": __version__, "ledger": ledger.to_data()}
    store.write(_key(line), json.dumps(data).encode())


def delete(store: Objects, line: str) -> None:
    """Remove it: the events that it sums are about to become others."""
    store.delete(_key(line))


def _key(line: str) -> str:
    return f"snapshots/{line}.json"
