"""What a dispatcher tells Prometheus, read back with Prometheus' own parser."""

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dispatch_world import World
from prometheus_client.parser import text_string_to_metric_families

from components.services.events import Inbox
from components.services.records import Records
from components.services.wakeups import HttpWakeups
from pipelines.metrics import PATH, RECOUNT, Measured


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def measured(world: World) -> Measured:
    return Measured(world.dispatcher, world.home, clock=lambda: 1000.0 + world.now)


def read(measured: Measured) -> Callable[..., float]:
    """value(name, label=...) of the page."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(measured.text())
        for sample in family.samples
    }
    return lambda name, **labels: samples[f"l2dm_{name}", frozenset(labels.items())]


def test_a_dispatcher_that_never_looked_says_so(measured: Measured) -> None:
    assert read(measured)("last_look_timestamp_seconds") == 0


def test_waiting_learning_and_ended_concepts_are_counted(world: World, measured: Measured) -> None:
    for name in ("rex", "milo"):
        world.upload("pets", name, age=10 if name == "rex" else 0)
    assert measured.look() == {"pets": "started"}
    value = read(measured)
    assert (value("uploads_open", line="pets"), value("runs")) == (2, 1)
    assert value("concepts", line="pets", state="learning") == 1
    assert value("last_look_timestamp_seconds") == 1000

    world.finish()
    world.now = 60.0
    measured.look()
    value = read(measured)
    assert value("concepts", line="pets", state="promoted") == 1
    assert value("uploads_open", line="pets") == 1
    assert value("line_changed_timestamp_seconds", line="pets") == 1060


def test_a_regressed_champion_is_told_until_another_one_serves(
    world: World, measured: Measured
) -> None:
    world.upload("pets", "rex")
    measured.look()
    world.finish()
    records = Records(world.home.store, "pets")
    facts = {"health": "regressed", "cause": "model", "reasons": ["made up"], "digest": "d"}
    records.append("checked", version=1, seed=1, **facts)
    measured.look()
    assert read(measured)("champion_regressed", line="pets") == 1
    world.upload("pets", "milo")
    measured.look()
    world.finish()
    measured.look()
    assert read(measured)("champion_regressed", line="pets") == 0


def test_an_idle_line_keeps_its_time_and_is_counted_once_in_a_while(
    world: World, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("pets", "rex")
    measured.look()
    world.finish()
    measured.look()
    assert measured.look() == {"pets": "idle"}
    counted = list[str]()
    count = Measured._count

    def spied(self: Measured, line: str, before: Any) -> Any:
        counted.append(line)
        return count(self, line, before)

    monkeypatch.setattr(Measured, "_count", spied)
    world.now = RECOUNT - 1
    measured.look()
    assert counted == []
    world.now = RECOUNT + 1
    measured.look()
    assert counted == ["pets"]
    value = read(measured)
    assert value("line_changed_timestamp_seconds", line="pets") == 1000
    assert value("last_look_timestamp_seconds") == 1000 + RECOUNT + 1


def test_another_dispatchers_work_is_seen(world: World, measured: Measured) -> None:
    world.upload("pets", "rex")
    world.another().look()
    assert measured.look() == {"pets": "busy"}
    value = read(measured)
    assert value("concepts", line="pets", state="learning") == 1
    assert (value("runs"), value("lines", moved="busy")) == (0, 1)


def test_a_broken_line_is_told_and_keeps_its_numbers(world: World, measured: Measured) -> None:
    world.upload("pets", "rex")
    measured.look()
    (world.home.folder / "records/pets/000002.json").write_text("half a reco")
    assert measured.look() == {"pets": "broken"}
    value = read(measured)
    assert (value("line_broken", line="pets"), value("lines", moved="broken")) == (1, 1)
    assert value("uploads_open", line="pets") == 1


def test_the_page_is_served_to_who_has_no_token(world: World, measured: Measured) -> None:
    world.upload("pets", "rex")
    measured.look()
    inbox = Inbox("bucket", "")
    webhook = HttpWakeups("127.0.0.1", 0, inbox, "secret", {PATH: measured.text})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{webhook.port}{PATH}", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert 'l2dm_uploads_open{line="pets"} 1.0' in answer.read().decode()
    finally:
        webhook.close()
