"""Whatever a `concept.json` in an inbox says: who looks goes on, who fetches it is told."""

import json
from pathlib import Path

from components.services.line.uploads import Uploads
from components.services.store.folder import FolderObjects
from l2dm.errors import BadUpload
from tests.worlds import hostile_concepts

GOOD = {
    "line": "pets",
    "concept": {"name": "rex", "class_noun": "dog"},
    "pictures": [
        {"name": f"{i:02d}.png", "sha256": "0" * 64, "caption": "a dog"} for i in range(3)
    ],
    "limits": {"max_bytes": 1000, "max_pictures": 20},
}


def test_hostile_texts_in_an_inbox_stop_nobody(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path / "home")
    for name in ("00.png", "01.png", "02.png"):
        store.write(f"inbox/pets/rex/{name}", b"a picture")
    good, fetched = json.dumps(GOOD).encode(), 0
    for seed in range(350):
        store.write("inbox/pets/rex/concept.json", hostile_concepts.make(good, seed))
        uploads, to = Uploads(store, "pets"), tmp_path / "to" / str(seed)
        try:
            assert uploads.waiting(()) == uploads.open(()) == ("rex",)
            assert uploads.digest("rex") and len(uploads.class_noun("rex")) <= 40
            uploads.fetch("rex", to, max_bytes=1000)
            fetched += 1
        except BadUpload as error:
            assert all(len(one) < 800 for one in error.problems), seed
        except Exception as error:
            raise AssertionError(f"{seed}: {type(error).__name__}: {error}") from error
        assert {one.name for one in to.iterdir()} <= {"concept.json", "00.png", "01.png", "02.png"}
    assert fetched  # its text is judged by whoever learns it
