"""The event `submitted`: it opens an upload at once, and is the one event that an uploader appends.

Who may write to the inbox need not be allowed to append events (infra/aws): a dispatcher finds an
upload without one, by its name at the next scan, and by a bucket's event or a listing of the whole
inbox, within ten minutes, where it lies in the place of one that has ended.
"""

import logging

from components.services.line.ledger import ENDINGS, ConceptState
from components.services.line.records import Records
from l2dm.doors import Concept
from l2dm.errors import ClosedStore

log = logging.getLogger(__name__)


def record(
    records: Records, concept: Concept, before: ConceptState | None, *, upload: str, since: int
) -> None:
    """Tell of an upload that was committed, where we may.

    before: what was known of the concept then. upload, since: see Ledger. Raises ClosedStore where
    we may not and it matters: pictures that have ended before are no new upload without it.
    """
    try:
        records.append(
            "submitted",
            concept=concept.name,
            class_noun=concept.class_noun,
            upload=upload,
            since=since,
        )
    except ClosedStore as error:
        if before is not None and before.state in ENDINGS and before.upload == upload:
            raise ClosedStore(
                f"concept {concept.name!r}: expected other pictures than those that ended as "
                f"{before.state}, or the right to append events, found neither; take a picture out "
                f"or in, or have somebody submit them who may write below records/ ({error})"
            ) from error
        log.info("concept %s is not recorded as submitted: %s", concept.name, error)
