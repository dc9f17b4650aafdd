"""What is recorded and swept when a run of an upload has ended without a release, or with one."""

import shutil

from components.services.home import Home
from components.services.journal import Failure
from components.services.records import ENDINGS, ConceptState, Records
from components.services.uploads import Uploads
from l2dm.errors import L2dmError


def end_badly(
    home: Home, line: str, concept: str, failure: Failure | None, text: str
) -> ConceptState:
    """Record `refused` with the reasons, or `failed` with step and error.

    text: what is known when no step could say why. Raises L2dmError when the upload had ended
    already and only what comes after failed.
    """
    refused = failure is not None and failure.kind == "BadUpload"
    reasons = failure.problems if failure else (text,)
    if failure and not refused:
        reasons = tuple(f"step {failure.step}: {failure.kind}: {one}" for one in reasons)
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    known, digest = records.concept(concept), uploads.digest(concept)
    if known and known.state in ENDINGS and known.upload == digest:
        raise L2dmError(
            f"concept {concept!r} was {known.state} as version {known.version}, but "
            f"what comes after failed: {'; '.join(reasons)}"
        )
    ended = ConceptState(
        concept,
        uploads.class_noun(concept),
        "refused" if refused else "failed",
        reasons=reasons,
        task=known.task if known and known.state in ("learning", "waiting") else "",
        upload=digest,
    )
    records.end(ended, step=failure.step if failure else None)
    return ended


def sweep(home: Home, line: str, concept: str) -> None:
    """Remove checkpoints and the doors of a finished run: the release is in the registry."""
    shutil.rmtree(home.work(line, concept), ignore_errors=True)
    shutil.rmtree(home.run(line, concept) / "pipeline", ignore_errors=True)
