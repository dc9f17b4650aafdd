"""What no twin can show: clocks that are wrong in whole processes, an object of a gigabyte."""

import hashlib
import json
import resource
import time
from pathlib import Path

import pytest

from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.store.s3 import S3Objects
from components.services.tracking.mlflow_registry import MlflowRegistry
from l2dm.errors import BadUpload
from l2dm.spec import Spec
from tests.worlds.paused import FAKETIME, Stage

pytestmark = pytest.mark.slow

ECHO = Path(__file__).parents[1] / "worlds" / "echo_model.py"
LEASE, SLEEP = 6.0, 7.0  # seconds
GIGABYTE = 2**30


@pytest.mark.filterwarnings("ignore")  # mlflow's, while a model is logged
@pytest.mark.parametrize("ahead", [300, -300])
def test_who_takes_over_with_a_wrong_clock_promotes_once_and_waits_as_long_as_others(
    place: str, tmp_path: Path, ahead: int
) -> None:
    assert FAKETIME, "expected libfaketime; tests/integration/install.sh installs it"
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "manifest.json").write_text("{}")
    home = Home.at(place)
    registry = MlflowRegistry(home, "pocket", ECHO)
    line = home.place.rpartition("/")[2]
    after = Stage(home, registry, "mlflow", line, tmp_path / "release").play(
        "record", SLEEP, LEASE, ahead
    )
    assert ahead - 1 <= after.told < ahead + 60
    assert after.slept >= LEASE  # it did not take the line before the lease was over
    assert (after.sleeper, after.rival) == ("StaleParent", "promoted")
    assert after.chain == ((0, 1), (1, 3))
    assert after.aliases == {"champion": 3, "previous": 1}


def test_an_object_of_a_gigabyte_is_refused_unread(place: str, tmp_path: Path) -> None:
    store = Home.at(place).store
    assert isinstance(store, S3Objects)
    big = tmp_path / "big.png"
    with open(big, "wb") as file:
        file.truncate(GIGABYTE)
    store.upload("inbox/pets/rex/00.png", big)
    sha = hashlib.sha256(b"what its concept.json says").hexdigest()
    concept = {"line": "pets", "concept": {"name": "rex", "class_noun": "dog"}}
    text = json.dumps(concept | {"pictures": [{"name": "00.png", "sha256": sha}]})
    store.create("inbox/pets/rex/concept.json", text.encode())
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    uploads = Uploads(store, "pets")
    assert uploads.waiting(()) == ("rex",)
    with pytest.raises(BadUpload, match=f"found {GIGABYTE:,}"):
        uploads.fetch("rex", tmp_path / "rex", max_bytes=Spec().intake.max_bytes)
    assert time.monotonic() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert [path.name for path in (tmp_path / "rex").iterdir()] == ["concept.json"]
    store.delete("inbox/pets/rex/00.png")  # the servers keep it in memory
