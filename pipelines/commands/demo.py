"""Three concepts of the pocket world, written as pictures and submitted like anybody's."""

import tempfile
from pathlib import Path

from components.services.line.uploads import Uploads
from components.services.store.home import Home
from l2dm.doors import Concept
from l2dm.spec import IntakeSpec
from pipelines.commands import operations

LINE = "demo"
METHOD = "train.method=gated"  # learns best on this base; --set train.method=l2dm for the other
PICTURES = 5
CONCEPTS = (Concept("rex", "dog"), Concept("mimi", "cat"), Concept("sunny", "cup"))


def write_uploads(folder: str) -> None:
    """Submit the demo's concepts that the line does not know yet."""
    from l2dm.pocket.world.scenes import NOUNS, TUNING_SEEDS, identity, photos

    uploads = Uploads(Home.at(folder).store, LINE)
    for index, concept in enumerate(CONCEPTS):
        if uploads.digest(concept.name):
            continue
        assert concept.class_noun in NOUNS
        subject = identity(TUNING_SEEDS[index], concept.class_noun)
        with tempfile.TemporaryDirectory() as scratch:
            for number, picture in enumerate(photos(subject, PICTURES, seed=index)):
                picture.save(Path(scratch) / f"{number:02d}.png")
            operations.submit(folder, Path(scratch), LINE, concept, IntakeSpec())
