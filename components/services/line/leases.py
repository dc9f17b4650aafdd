"""One run at a time on a line, over many machines: a lease with a fencing number.

The lease is one object, `leases/<line>.json`, that is replaced on condition that it is as it was
read, so of two takers one wins. Its age is told by the store's own clock: machines whose clocks
disagree see it expire at the same moment. It is never deleted, because its fencing number must
never go back: a run that was given number 7 knows, whenever it wakes up, that 8 took over.
A holder that died on this machine is seen to be dead at once.

A run may outlive the dispatcher that started it. Then the lease goes on under its number, for the
dispatcher that watches the run next: one can be replaced without ending what learns.
"""

import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.services.store.objects import Objects
from l2dm.errors import Conflict, Corrupt, L2dmError, LineBusy, LostLease, NoSuchObject, words

log = logging.getLogger(__name__)

SECONDS = 60.0  # without a heartbeat for so long, a lease is free to take
FACTS = ("owner", "fence", "beat", "host", "space", "pid")
LEFT = "left"  # set in a lease whose holder left while its run goes on
BEATS = 4  # heartbeats in that time
TOGETHER = 16  # leases that are renewed side by side


@dataclass(frozen=True)
class Lease:
    """A line that is held. fence: grows with every taking; tag: the bytes of the last beat."""

    line: str
    owner: str
    fence: int
    tag: str = field(compare=False)
    beat: int = field(default=0, compare=False)


class Leases:
    """The leases of all lines in one store."""

    def __init__(self, store: Objects, seconds: float | None = None) -> None:
        self.seconds = SECONDS if seconds is None else seconds
        self._store = store.hasty()  # a request that hangs must not outlive the lease

    def take(self, line: str, owner: str, run: int = 0) -> Lease:
        """Hold a line that is free or whose holder has not been heard of, under a new number.

        owner: unique among takers, since a taking is the write of its name. run: the number of a
        run that goes on without its starter; where nobody took the line since, that number stays,
        so that the run may act. Raises LineBusy.
        """
        found = self._read(line)
        try:
            if found is None:
                lease = Lease(line, owner, 1, "")
                return replace(lease, tag=self._store.create(_key(line), _bytes(lease)))
            facts, tag, age = found
            stays = bool(facts["owner"]) and int(facts["fence"]) == run
            if self._lives(facts, age) and not (stays and facts[LEFT]):
                raise LineBusy(_busy(line, facts, age))
            lease = Lease(line, owner, run, "", int(facts["beat"]) + 1)
            if not stays:
                lease = Lease(line, owner, int(facts["fence"]) + 1, "")
            return replace(lease, tag=self._store.replace(_key(line), _bytes(lease), tag))
        except Conflict:
            raise LineBusy(
                f"expected line {line!r} to be free, found that another process takes it now; "
                "run this again when it is done"
            ) from None

    def renew(self, lease: Lease) -> Lease:
        """Tell that the holder lives. Raises LostLease when another one took the line."""
        following = replace(lease, beat=lease.beat + 1)
        try:
            tag = self._store.replace(_key(lease.line), _bytes(following), lease.tag)
        except Conflict:
            raise LostLease(_lost(lease.line, lease.fence, self._read(lease.line))) from None
        return replace(following, tag=tag)

    def leave(self, lease: Lease) -> None:
        """Let the run of this lease go on: it lives as after a heartbeat, for `take` to take over.

        No error when it was lost meanwhile.
        """
        following = replace(lease, beat=lease.beat + 1)
        try:
            self._store.replace(_key(lease.line), _bytes(following, left=True), lease.tag)
        except Conflict:
            return

    def release(self, lease: Lease) -> None:
        """Free the line at once; no error when it was lost meanwhile."""
        free = _bytes(replace(lease, owner="", beat=lease.beat + 1))
        try:
            self._store.replace(_key(lease.line), free, lease.tag)
        except Conflict:
            return

    def check(self, line: str, fence: int) -> None:
        """What `train` and `promote` ask before they act. Raises LostLease.

        The lease must carry this number, be held, and have been renewed in time: a process that was
        paused longer than that must not act, even when nobody took over yet.
        """
        found = self._read(line)
        if found is not None:
            facts, _, age = found
            if int(facts["fence"]) == fence and self._lives(facts, age):
                return
        raise LostLease(_lost(line, fence, found))

    def holder(self, line: str) -> str | None:
        """Who holds a line, in words, and until when; None when it is free."""
        found = self._read(line)
        if found is None or not self._lives(found[0], found[2]):
            return None
        left = max(0.0, self.seconds - found[2])
        return f"{_words(found[0], found[2])}; free in {left:.0f} s unless it is heard of again"

    @contextmanager
    def held(self, line: str) -> Iterator["Keeper"]:
        """Take a line and renew it until the block ends. Raises LineBusy."""
        keeper = Keeper(self, patience=math.inf)  # its holder waits for one run, however long
        keeper.hold(line, uuid.uuid4().hex[:12])
        keeper.start()
        try:
            yield keeper
        finally:
            keeper.close()
            keeper.free(line)

    def _lives(self, facts: dict[str, Any], age: float) -> bool:
        died = not facts[LEFT] and _died_here(facts)
        return bool(facts["owner"]) and age <= self.seconds and not died

    def _read(self, line: str) -> tuple[dict[str, Any], str, float] | None:
        try:
            stored = self._store.read(_key(line))
        except NoSuchObject:
            return None
        try:
            facts = json.loads(stored.data)
            known = {name: facts[name] for name in FACTS} | {LEFT: bool(facts.get(LEFT))}
            return known, stored.tag, stored.age
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupt(
                f"expected a lease as JSON in {_key(line)!r}, found something else ({error}); stop "
                "the line's runs, then restore that object: its number must not go back"
            ) from error


class Keeper:
    """The leases that a process holds, renewed from one thread however long its work takes.

    Lines are renewed side by side: one whose request hangs costs the others nothing.
    They are renewed for as long as their holder says every so often that it goes on: one whose loop
    stands still gives its lines up, as if it had died. patience: seconds of that. A lease that was
    lost is forgotten; `held` tells, and `lease` raises.
    """

    def __init__(self, leases: Leases, patience: float = 600.0) -> None:
        self._leases, self._patience = leases, patience
        self._held: dict[str, Lease] = {}
        self._lost: dict[str, LostLease] = {}
        self._locks: dict[str, threading.Lock] = {}  # a lease is renewed by one thread at a time
        self._end = threading.Event()
        self._heard = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Renew from now on."""
        self._thread = threading.Thread(target=self._renew, name="keeper", daemon=True)
        self._thread.start()

    def goes_on(self) -> None:
        """The holder's loop makes progress."""
        self._heard = time.monotonic()

    def held(self) -> tuple[str, ...]:
        """Lines whose leases we hold, as far as we know."""
        return tuple(self._held)

    def holds(self, line: str) -> bool:
        """Whether a line is ours, as far as we know."""
        return line in self._held

    def lease(self, line: str) -> Lease:
        """Our lease of a line that we took, as last renewed. Raises LostLease."""
        try:
            return self._held[line]
        except KeyError:
            raise self._lost[line] from None

    def hold(self, line: str, owner: str, run: int = 0) -> Lease:
        """Our lease of the line, renewed, or a new one; see `take`. Raises LineBusy, LostLease."""
        with self._lock(line):
            lease = self._held.get(line)
            try:
                lease = self._leases.renew(lease) if lease else self._leases.take(line, owner, run)
            except LostLease as error:
                self._forget(line, error)
                raise
            self._held[line] = lease
            return lease

    def free(self, line: str) -> None:
        """Give a line back; no error when it is not held, or was lost.

        None either where the store refuses it: the lease expires by itself, and whatever the line
        was held for counts, or its error does.
        """
        with self._lock(line):
            lease = self._held.pop(line, None)
            if lease is None:
                return
            try:
                self._leases.release(lease)
            except (L2dmError, OSError) as error:
                log.warning(
                    "lease of line %r not given back: %s. It is free in %.0f s",
                    line,
                    words(error),
                    self._leases.seconds,
                )

    def forget(self, line: str) -> None:
        """It was lost: another one holds it now."""
        with self._lock(line):
            self._held.pop(line, None)

    def close(self) -> None:
        """End the thread; the leases expire, unless they were given back."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def leave(self) -> None:
        """After `close`: whoever comes next takes the lines over, with the runs that go on."""
        for line in self.held():
            lease = self._held.pop(line)
            try:
                self._leases.leave(lease)
            except (L2dmError, OSError) as error:  # it expires, as if we had died
                log.warning("lease of line %r not handed over: %s", line, words(error))

    def _renew(self) -> None:
        with ThreadPoolExecutor(TOGETHER) as pool:
            self._beat(pool)

    def _beat(self, pool: ThreadPoolExecutor) -> None:
        beats: dict[str, Future[None]] = {}
        while not self._end.wait(self._leases.seconds / BEATS):
            held = self.held()
            if not held or time.monotonic() - self._heard > self._patience:
                continue
            for line in held:
                if line not in beats or beats[line].done():  # else it hangs: the others go on
                    beats[line] = pool.submit(self._renew_one, line)

    def _lock(self, line: str) -> threading.Lock:
        return self._locks.setdefault(line, threading.Lock())

    def _forget(self, line: str, why: LostLease) -> None:
        self._lost[line] = why
        del self._held[line]

    def _renew_one(self, line: str) -> None:
        with self._lock(line):
            lease = self._held.get(line)
            if lease is None:
                return
            try:
                self._held[line] = self._leases.renew(lease)
            except LostLease as error:
                log.warning("%s", error)
                self._forget(line, error)
            except (L2dmError, OSError) as error:  # the store may answer again
                log.warning("lease of line %r not renewed: %s", line, words(error))


def _key(line: str) -> str:
    return f"leases/{line}.json"


def _bytes(lease: Lease, *, left: bool = False) -> bytes:
    where = {"host": socket.gethostname(), "space": _process_space(), "pid": os.getpid()}
    facts = {"owner": lease.owner, "fence": lease.fence, "beat": lease.beat, **where}
    return json.dumps(facts | ({LEFT: True} if left else {})).encode()


def _process_space() -> str:
    """What tells whose process numbers these are: containers may share a host's name."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:" + os.readlink(
            "/proc/self/ns/pid"
        )
    except OSError:  # no Linux: nobody is known to be dead
        return ""


def _died_here(facts: dict[str, Any]) -> bool:
    if not facts["space"] or facts["space"] != _process_space():
        return False
    try:
        os.kill(int(facts["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, alive
        return False
    return False


def _words(facts: dict[str, Any], age: float) -> str:
    return (
        f"process {facts['pid']} on {facts['host']} ({facts['owner']}, number {facts['fence']}, "
        f"last heard of {age:.0f} s ago)"
    )


def _busy(line: str, facts: dict[str, Any], age: float) -> str:
    return (
        f"expected line {line!r} to be free, found it held by {_words(facts, age)}; "
        "wait until that run ends, or stop it and run this again"
    )


def _lost(line: str, fence: int, found: tuple[dict[str, Any], str, float] | None) -> str:
    now = "none" if found is None else _words(found[0], found[2])
    return (
        f"expected to hold line {line!r} under number {fence}, found {now}; this run was taken "
        "for dead and must not go on, the line's next run learns the upload"
    )
