"""Versions by their files alone: what is left of a line when the database that named it is lost."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from components.services.tracking.registry import VersionFacts, facts_of
from l2dm import doors
from l2dm.errors import BadDoor, words
from l2dm.files import manifest

FACTS = "l2dm.json"  # within a logged model: what the database knows of the version
RELEASE = Path("artifacts") / "release"  # within a logged model

log = logging.getLogger(__name__)


def write_facts(model: Path, facts: VersionFacts) -> None:
    """Leave the facts of a version in its logged model."""
    (model / FACTS).write_text(json.dumps(manifest.to_data(facts)))


def versions_in(models: Path) -> Iterator[tuple[Path, VersionFacts]]:
    """Logged models that hold a whole release, with its facts; damaged ones are told of."""
    for model in sorted(models.glob("*/artifacts")):
        try:
            facts = _facts(model, manifest.read(model / RELEASE, doors.Release))
        except (BadDoor, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("no version is made of %s: %s", model, words(error))
            continue
        if facts is not None:
            yield model, facts


def _facts(model: Path, door: manifest.Door[doors.Release]) -> VersionFacts | None:
    """An earlier release left the facts in the database alone: the scores are lost with it."""
    if (model / FACTS).exists():
        facts: VersionFacts = manifest.from_data(
            VersionFacts, json.loads((model / FACTS).read_text())
        )
        return facts if facts.digest == door.digest else None
    return facts_of(door)
