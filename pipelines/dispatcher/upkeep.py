"""What an operator asks of a line: end an upload, make records and registry agree after a restore.

`operations.py` has what users ask.
"""

from components.services.line.leases import Leases
from components.services.line.ledger import ENDINGS
from components.services.line.records import Records
from components.services.line.restore import Dropped
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry
from l2dm.errors import Conflict, L2dmError, LineBusy, UnknownLine
from pipelines.dispatcher.end_upload import cancelled, end_cancelled
from pipelines.dispatcher.repair import repair_line


def cancel(home: Home, line: str, concept: str, reason: str) -> bool:
    """End an upload that waits or is being learned as `failed`, with who and why.

    True when it has ended; False when a dispatcher that learns on this line ends it at its next
    look. Raises UnknownLine when there is no such upload, L2dmError when it has ended.
    """
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    while True:
        ledger, found = records.state(), uploads.commitment(concept)
        digest = found.digest
        known = ledger.concepts.get(concept)
        if not digest and (known is None or known.state in ENDINGS):
            raise UnknownLine(
                f"expected an upload of concept {concept!r} in line {line!r}, found none; see "
                "`l2dm status` for what waits"
            )
        if known and known.state in ENDINGS and known.upload == digest:
            raise L2dmError(
                f"expected concept {concept!r} of line {line!r} to wait or to be learned, found "
                f"that it was {known.state}; `l2dm rollback` takes a version back"
            )
        facts = {"concept": concept, "upload": digest, "mark": found.mark, "reason": reason}
        try:
            records.append_next(ledger.last, "cancelled", **facts)
        except Conflict:  # something happened since: perhaps its end
            continue
        return _end_now(home, records, line, concept)


def _end_now(home: Home, records: Records, line: str, concept: str) -> bool:
    """End it here and now unless somebody learns on this line."""
    if records.state().active is not None:
        return False  # under a lease that a dispatcher takes over with its run: leave it alone
    try:
        with Leases(home.store).held(line):
            ledger = records.state()
            if ledger.active is not None:  # started meanwhile
                return False
            unwanted = cancelled(Uploads(home.store, line), ledger, [concept])
            end_cancelled(home, line, unwanted, ledger.last)
            return bool(unwanted)
    except (LineBusy, Conflict):
        return False


def repair(home: Home, registry: Registry, line: str) -> Dropped | None:
    """After a restore: make records, registry and aliases agree. Raises LineBusy.

    Returns what was dropped, None when they did agree.
    """
    with Leases(home.store).held(line):
        return repair_line(home, registry, Records(home.store, line), line)
