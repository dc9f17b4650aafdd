"""The event `submitted`: it opens an upload at once, and is the one event that an uploader appends.

An uploader may write to the inbox but perhaps append no events (infra/aws). A dispatcher finds such
an upload all the same: a new name at its next scan, one in the place of an upload that has ended by
the bucket's event or within ten minutes, when it lists the whole inbox.
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
