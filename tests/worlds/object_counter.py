"""A counter in an object store that several threads or processes increase."""

import sys
import uuid
from pathlib import Path

from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects
from l2dm.errors import Conflict


def count_up(objects: Objects, times: int) -> None:
    """A name beside the number keeps two writers of the same number apart."""
    for _ in range(times):
        while True:
            found = objects.read("counter")
            number = int(found.data.split()[0]) + 1
            try:
                objects.replace("counter", f"{number} {uuid.uuid4().hex}".encode(), found.tag)
            except Conflict:
                continue
            break


if __name__ == "__main__":
    count_up(FolderObjects(Path(sys.argv[1])), int(sys.argv[2]))
