"""One holder per line: takings race, leases expire by the store's clock, the paused find out."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from components.services.line.leases import Keeper, Lease, Leases
from components.services.store.folder import FolderObjects
from l2dm.errors import BadStore, LineBusy, LostLease


@pytest.fixture
def store(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path)


def let_pass(store: FolderObjects, seconds: float) -> None:
    """As if the lease had been written that much earlier, by the store's own clock."""
    path = store.folder / "leases" / "pets.json"
    written = path.stat().st_mtime - seconds
    os.utime(path, (written, written))


def test_a_held_line_is_busy_and_a_freed_one_is_not(store: FolderObjects) -> None:
    leases = Leases(store)
    assert leases.holder("pets") is None
    lease = leases.take("pets", "a")
    assert (lease.fence, lease.owner) == (1, "a")
    with pytest.raises(
        LineBusy, match=rf"'pets' to be free, found it held by process {os.getpid()}"
    ):
        leases.take("pets", "b")
    assert "number 1" in (leases.holder("pets") or "")
    assert leases.take("cars", "b").fence == 1  # other lines are not touched
    leases.release(lease)
    assert leases.holder("pets") is None
    assert leases.take("pets", "b").fence == 2


def test_a_run_that_outlives_its_holder_keeps_its_number(store: FolderObjects) -> None:
    leases = Leases(store, seconds=60)
    first = leases.take("pets", "a")
    with pytest.raises(LineBusy):
        leases.take("pets", "b", run=1)  # its holder lives
    leases.leave(leases.renew(first))
    leases.check("pets", 1)
    with pytest.raises(LineBusy):
        leases.take("pets", "b")
    with pytest.raises(LineBusy):
        leases.take("pets", "b", run=2)  # of another run
    second = leases.take("pets", "b", run=1)
    assert second.fence == 1
    leases.check("pets", 1)
    with pytest.raises(LostLease):  # the holder before it finds out
        leases.renew(replace(second, tag=first.tag))
    let_pass(store, 61)
    with pytest.raises(LostLease):
        leases.check("pets", 1)
    third = leases.take("pets", "c", run=1)  # of one that died without a word
    leases.check("pets", 1)
    leases.release(third)
    assert leases.take("pets", "d", run=1).fence == 2  # a number that was given back is spent


def test_a_lease_that_was_left_lives_though_its_process_has_ended(
    store: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(store)
    lease = leases.take("pets", "a")
    leases.leave(lease)
    monkeypatch.setattr("components.services.line.leases._died_here", lambda facts: True)
    leases.check("pets", 1)
    assert leases.take("pets", "b", run=1).fence == 1
    with pytest.raises(LostLease):
        leases.check("pets", 1)  # and this one was not left


def test_of_twelve_takers_one_wins_every_round(store: FolderObjects) -> None:
    leases = Leases(store)
    for round_ in range(10):
        start = threading.Barrier(12)

        def take(name: str, start: threading.Barrier = start) -> Lease | None:
            start.wait()
            try:
                return leases.take("pets", name)
            except LineBusy:
                return None

        with ThreadPoolExecutor(12) as pool:
            names = [f"{round_}-{i}" for i in range(12)]
            (won,) = [lease for lease in pool.map(take, names) if lease]
        assert won.fence == round_ + 1
        leases.release(won)


def test_a_lease_that_is_renewed_lives_and_one_that_is_not_is_taken_over(
    store: FolderObjects,
) -> None:
    leases = Leases(store, seconds=60)
    first = leases.take("pets", "a")
    let_pass(store, 50)
    first = leases.renew(first)
    let_pass(store, 50)
    leases.check("pets", 1)  # 50 s since the beat, 100 s since it was taken
    let_pass(store, 11)
    with pytest.raises(LostLease, match=r"under number 1, found process .* last heard of 61 s ago"):
        leases.check("pets", 1)
    second = leases.take("pets", "b")
    assert second.fence == 2
    with pytest.raises(LostLease, match=r"under number 1, found process .*\(b, number 2"):
        leases.renew(first)
    leases.release(first)  # frees nothing: it is not its own any more
    leases.check("pets", 2)


def test_an_expired_holder_that_nobody_replaced_may_renew_but_not_act(
    store: FolderObjects,
) -> None:
    leases = Leases(store, seconds=60)
    lease = leases.take("pets", "a")
    let_pass(store, 61)
    with pytest.raises(LostLease):
        leases.check("pets", 1)
    leases.renew(lease)
    leases.check("pets", 1)


def test_a_clock_that_is_five_minutes_off_changes_nothing(
    store: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Leases(store).take("pets", "a")
    right = time.time
    for off in (300, -300):
        monkeypatch.setattr(time, "time", lambda off=off: right() + off)
        with pytest.raises(LineBusy):
            Leases(store).take("pets", "b")
        Leases(store).check("pets", lease.fence)


def test_a_heartbeat_keeps_the_line_and_frees_it_at_the_end(store: FolderObjects) -> None:
    leases = Leases(store, seconds=0.4)
    with leases.held("pets") as keeper:
        time.sleep(1.0)
        leases.check("pets", keeper.lease("pets").fence)
        with pytest.raises(LineBusy):
            leases.take("pets", "b")
    assert leases.take("pets", "b").fence == 2


def test_a_heartbeat_that_lost_its_line_says_so(store: FolderObjects) -> None:
    leases = Leases(store, seconds=0.4)
    with leases.held("pets") as keeper:
        let_pass(store, 60)
        try:
            leases.take("pets", "b")
        except LineBusy:  # a beat came between; the next pause is long enough
            let_pass(store, 60)
            leases.take("pets", "b")
        time.sleep(0.5)
        with pytest.raises(LostLease):
            keeper.lease("pets")
    Leases(store, seconds=60).check("pets", 2)  # the end of a's block has not freed b's lease


def test_a_keeper_renews_what_it_holds_however_long_its_holder_looks(store: FolderObjects) -> None:
    leases = Leases(store, seconds=0.4)
    keeper = Keeper(leases)
    keeper.start()
    try:
        fence = keeper.hold("pets", "a").fence
        time.sleep(1.0)  # one long look
        leases.check("pets", fence)
        assert keeper.hold("pets", "a").fence == fence
        keeper.free("pets")
        assert (keeper.held(), leases.take("pets", "b").fence) == ((), 2)
    finally:
        keeper.close()


def test_a_keeper_whose_holder_stands_still_gives_its_lines_up(store: FolderObjects) -> None:
    leases = Leases(store, seconds=0.4)
    keeper = Keeper(leases, patience=0.2)
    keeper.start()
    try:
        keeper.goes_on()
        keeper.hold("pets", "a")
        time.sleep(1.2)
        assert leases.take("pets", "b").fence == 2
    finally:
        keeper.close()


def test_a_keeper_forgets_what_it_lost(store: FolderObjects) -> None:
    keeper = Keeper(Leases(store, seconds=0.4))
    keeper.hold("pets", "a")
    let_pass(store, 60)
    Leases(store).take("pets", "b")
    keeper.start()
    try:
        time.sleep(0.3)
        assert not keeper.holds("pets")
        with pytest.raises(LineBusy):
            keeper.hold("pets", "a")
    finally:
        keeper.close()


class Failing(FolderObjects):
    """Refuses every write while `broken`."""

    broken = False

    def replace(self, key: str, data: bytes, tag: str) -> str:
        if self.broken:
            raise OSError("no answer")
        return super().replace(key, data, tag)


def test_a_store_that_does_not_answer_for_a_while_ends_no_heartbeat(tmp_path: Path) -> None:
    store = Failing(tmp_path)
    leases = Leases(store, seconds=2)
    with leases.held("pets") as keeper:
        store.broken = True
        time.sleep(0.8)
        store.broken = False
        time.sleep(0.8)
        assert keeper.lease("pets").beat >= 1
        leases.check("pets", 1)


class Forgetful(FolderObjects):
    """Writes, then loses the answer and is asked again, as a retried request does."""

    def replace(self, key: str, data: bytes, tag: str) -> str:
        super().replace(key, data, tag)
        return super().replace(key, data, tag)

    def create(self, key: str, data: bytes) -> str:
        super().create(key, data)
        return super().create(key, data)


def test_a_retried_request_loses_no_lease(tmp_path: Path) -> None:
    leases = Leases(Forgetful(tmp_path))
    lease = leases.renew(leases.renew(leases.take("pets", "a")))
    leases.check("pets", lease.fence)
    leases.release(lease)
    assert leases.take("pets", "b").fence == 2


HOLD = """
import sys, time
from pathlib import Path
from components.services.line.leases import Leases
from components.services.store.folder import FolderObjects
Leases(FolderObjects(Path(sys.argv[1]))).take("pets", "other")
print("held", flush=True)
time.sleep(60)
"""


def test_a_holder_killed_on_this_machine_is_seen_to_be_dead_at_once(store: FolderObjects) -> None:
    leases = Leases(store)
    command = [sys.executable, "-c", HOLD, str(store.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LineBusy, match=f"process {other.pid}"):
            leases.take("pets", "a")
        other.kill()
        other.wait()
    assert leases.holder("pets") is None
    assert leases.take("pets", "a").fence == 2


def test_a_process_of_the_same_number_elsewhere_is_not_taken_for_dead(
    store: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**30)  # no such process here
    monkeypatch.setattr("components.services.line.leases._process_space", lambda: "elsewhere")
    Leases(store).take("pets", "a")
    monkeypatch.undo()
    with pytest.raises(LineBusy):
        Leases(store).take("pets", "b")


def test_a_store_that_does_not_answer_once_costs_no_lease(
    store: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: FolderObjects, key: str, data: bytes, tag: str) -> str:
        raise BadStore("no answer")

    keeper = Keeper(Leases(store))
    lease = keeper.hold("pets", "me")
    with monkeypatch.context() as outage:
        outage.setattr(FolderObjects, "replace", away)
        with pytest.raises(BadStore):
            keeper.hold("pets", "me")
    assert keeper.held() == ("pets",)
    assert keeper.hold("pets", "me").fence == lease.fence


class Hanging(FolderObjects):
    """Its next renewal of one line takes longer than a lease lasts."""

    hangs = False

    def replace(self, key: str, data: bytes, tag: str) -> str:
        if self.hangs and "aaa" in key:
            self.hangs = False
            time.sleep(2.5)
        return super().replace(key, data, tag)


@pytest.mark.slow
def test_a_request_that_hangs_costs_other_lines_nothing(tmp_path: Path) -> None:
    store = Hanging(tmp_path)
    leases = Leases(store, seconds=2.0)
    keeper = Keeper(leases)
    keeper.start()
    fences = {line: keeper.hold(line, "me").fence for line in ("aaa", "bbb", "ccc")}
    store.hangs = True
    time.sleep(2.8)
    assert not store.hangs
    for line in ("bbb", "ccc"):
        leases.check(line, fences[line])
    keeper.close()
