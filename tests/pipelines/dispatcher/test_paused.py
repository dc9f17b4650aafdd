"""Real processes, one stopped inside its promotion for longer than its lease: one promotion."""

from pathlib import Path

import pytest

from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry
from tests.worlds.paused import Stage

pytestmark = pytest.mark.slow

LEASE, SLEEP = 2.0, 3.0  # seconds; benchmarks.paused takes 60 of both


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "release").mkdir()
    registry = tmp_path / "registry"
    home = Home.at(tmp_path / "home")
    return Stage(home, FolderRegistry(registry), str(registry), "pets", tmp_path / "release")


def test_asleep_before_the_record_it_is_stale_when_it_wakes(stage: Stage) -> None:
    after = stage.play("record", SLEEP, LEASE)
    assert (after.sleeper, after.rival) == ("StaleParent", "promoted")
    assert after.chain == ((0, 1), (1, 3))
    assert after.aliases == {"champion": 3, "previous": 1}


def test_asleep_between_record_and_alias_it_has_promoted_and_the_rival_is_stale(
    stage: Stage,
) -> None:
    after = stage.play("alias", SLEEP, LEASE)
    assert (after.sleeper, after.rival) == ("promoted", "StaleParent")
    assert after.chain == ((0, 1), (1, 2))
    assert after.aliases == {"champion": 2, "previous": 1}
