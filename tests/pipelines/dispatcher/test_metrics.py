"""What a dispatcher tells Prometheus, read back with Prometheus' own parser."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.folder import FolderObjects
from components.services.wakeups.events import Inbox
from components.services.wakeups.sources import HttpWakeups
from pipelines.dispatcher.dispatcher import DispatchPolicy
from pipelines.dispatcher.end_upload import cancel
from pipelines.dispatcher.metrics import PATH, RECOUNT, Measured
from tests.worlds.dispatch_world import World

ENDED = {"class_noun": "dog", "task": "", "version": None, "reasons": ["made up"], "upload": "u"}


@pytest.fixture
def measured(world: World) -> Measured:
    return Measured(world.dispatcher, clock=lambda: 1000.0 + world.now)


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


def test_what_closed_the_gate_is_counted_while_the_concept_is_held(
    world: World, measured: Measured
) -> None:
    records = Records(world.home.store, "pets")
    found = [{"question": "identity", "passed": True}, {"question": "text", "passed": False}]
    held = {**ENDED, "state": "held", "version": 1, "reasons": ["learned", "noise"]}
    records.append("ended", concept="rex", findings=found, **held)
    records.append("ended", concept="milo", **held)  # of a release that did not say which
    measured.look()
    value = read(measured)
    assert value("gate_closed", line="pets", question="text") == 1
    assert value("gate_closed", line="pets", question="identity") == 0
    assert value("concepts", line="pets", state="held") == 2
    records.append("submitted", concept="rex", class_noun="dog")
    measured.look()
    assert read(measured)("gate_closed", line="pets", question="text") == 0


def test_a_cancel_rings_no_alarm(world: World, measured: Measured) -> None:
    """The rule of infra/cluster/base/prometheusrule.yaml reads the state `failed`."""
    world.upload("pets", "rex")
    cancel(world.home, "pets", "rex", "the wrong dog")
    measured.look()
    value = read(measured)
    assert value("concepts", line="pets", state="cancelled") == 1
    assert value("concepts", line="pets", state="failed") == 0


class Requests:
    """How often a folder store was asked since the last look at this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        for name in ("read", "list", "folders", "age"):
            monkeypatch.setattr(FolderObjects, name, self._spy(getattr(FolderObjects, name)))

    def _spy(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*given: Any, **more: Any) -> Any:
            self._count += 1
            return real(*given, **more)

        return ask

    def taken(self) -> int:
        count, self._count = self._count, 0
        return count


def test_idle_lines_cost_no_request_besides_their_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the first pass nor ten minutes later, and what another one does is seen."""
    world = World(tmp_path, DispatchPolicy(parallel=99, whole=1e9))
    lines = [f"line-{number}" for number in range(8)]
    for line in lines:
        world.upload(line, "rex")
        world.dispatcher.reconcile(line)
    for name in world.runs.running():
        world.runs.finish(name)
    while set(world.dispatcher.look().values()) != {"idle"}:
        pass
    asked = Requests(monkeypatch)
    world.dispatcher.look()
    bare = asked.taken()
    measured = Measured(world.dispatcher, clock=lambda: 1000.0 + world.now)
    for passed in (0.0, 1.0, RECOUNT, RECOUNT + 1):
        world.now = passed
        assert set(measured.look().values()) == {"idle"}
        assert asked.taken() == bare
    value = read(measured)
    assert value("line_changed_timestamp_seconds", line="line-0") == 1000
    assert value("last_look_timestamp_seconds") == 1000 + RECOUNT + 1

    records = Records(world.home.store, "line-0")
    records.append("ended", **{**ENDED, "concept": "milo", "state": "refused"})
    measured.look()
    value = read(measured)
    assert value("concepts", line="line-0", state="refused") == 1
    assert value("line_changed_timestamp_seconds", line="line-0") == 1000 + RECOUNT + 1


def test_busy_lines_are_counted_once_in_a_period_and_not_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, DispatchPolicy(parallel=99, whole=1e9))
    lines = [f"line-{number}" for number in range(8)]
    for line in lines:
        world.upload(line, "rex")
    measured = Measured(world.dispatcher, clock=lambda: 1000.0 + world.now)
    measured.look()
    assert set(measured.look().values()) == {"running"}
    counted = list[int]()
    waiting = Uploads.waiting

    def spied(self: Uploads, concepts: Any) -> Any:
        counted.append(1)
        return waiting(self, concepts)

    monkeypatch.setattr(Uploads, "waiting", spied)
    at_once = []
    for _ in range(60):
        counted.clear()
        world.now += RECOUNT / 60
        measured.look()
        at_once.append(len(counted))
    assert sum(at_once) == len(lines)
    assert max(at_once) <= 3

    world.upload("line-0", "milo")  # without a record: found when its time has come
    world.now += RECOUNT
    measured.look()
    assert read(measured)("uploads_open", line="line-0") == 2


def test_a_check_that_finds_nothing_is_told_by_its_time(world: World, measured: Measured) -> None:
    """Attempts that failed are no finding; nor is a clock of the cluster that leaves no record."""
    world.upload("pets", "rex")
    measured.look()
    world.finish()
    measured.look()
    page = measured.text()
    assert 'check_found_timestamp_seconds{line="pets"}' not in page  # it has no clock
    records = Records(world.home.store, "pets")
    began = time.time()
    facts = {"line": "pets", "cron": "* * * * *", "settings": [], "keeper": "cluster"}
    records.append("scheduled", **facts)
    measured.look()
    value = read(measured)
    assert value("check_found_timestamp_seconds", line="pets") == 0
    due = value("check_due_timestamp_seconds", line="pets")
    assert 0 < due - began <= 61
    for _ in range(3):
        records.append("unchecked", run="r", seed=1, step=None, reasons=["died"], not_before=0.0)
    measured.look()
    assert read(measured)("check_due_timestamp_seconds", line="pets") == due
    found = {"health": "healthy", "cause": "", "reasons": ["made up"], "digest": "d"}
    records.append("checked", version=1, seed=1, **found)
    measured.look()
    value = read(measured)
    assert value("check_found_timestamp_seconds", line="pets") >= int(began)
    assert value("check_due_timestamp_seconds", line="pets") >= due


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
