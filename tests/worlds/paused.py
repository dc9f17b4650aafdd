"""One promoter sleeps inside its promotion, longer than its lease; another takes the line over.

The other's clock may be wrong: libfaketime (Debian's package faketime) tells its whole process, C
libraries included, another time.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from components.services.line.leases import Leases
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import Registry, VersionFacts

SCRIPT = Path(__file__).with_name("paused_promoter.py")
LIBRARIES = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
FAKETIME = next((str(path) for path in LIBRARIES), "")


@dataclass(frozen=True)
class Aftermath:
    """How both ended, the promotions on record, the aliases, and how long the first one slept.

    told: seconds from when the rival was started, by our clock, to its first look at its own.
    """

    sleeper: str
    rival: str
    told: float
    chain: tuple[tuple[int, int], ...]
    aliases: dict[str, int]
    slept: float


@dataclass(frozen=True)
class Stage:
    """A line whose champion is version 1, with versions 2 and 3 that were both learned from it."""

    home: Home
    registry: Registry
    registry_name: str
    line: str
    release: Path

    def play(self, point: str, sleeps: float, seconds: float, ahead: int = 0) -> Aftermath:
        """seconds: after how many a lease expires. The rival acts while the sleeper sleeps.

        ahead: by how many seconds the rival's clock is wrong.
        """
        records, leases = Records(self.home.store, self.line), Leases(self.home.store, seconds)
        for number, parent in ((1, 0), (2, 1), (3, 1)):
            facts = VersionFacts(
                f"t{number:04d}", f"c{number}", "dog", parent, f"digest-{number}", True
            )
            assert self.registry.register(self.line, self.release, facts) == number
        records.append("promotion", line=self.line, task="t0001", source=0, target=1)
        self.registry.set_alias(self.line, "champion", 1)
        # by a process of its own, as far as anybody can tell: this one lives on
        lease = leases.take(self.line, "one")
        sleeper = self.promoter(2, str(lease.fence), point, seconds)
        until_stopped(sleeper.pid)
        began, asked = time.monotonic(), time.time()
        rival = self.promoter(3, "take", "nowhere", seconds, ahead).communicate()[0].split()
        time.sleep(max(0.0, sleeps - (time.monotonic() - began)))
        slept = time.monotonic() - began
        os.kill(sleeper.pid, signal.SIGCONT)
        woken = sleeper.communicate()[0].strip()
        found = Records(self.home.store, self.line).events()
        chain = tuple(
            (event.facts["source"], event.facts["target"])
            for event in found
            if event.kind == "promotion"
        )
        aliases = {str(name): number for name, number in self.registry.aliases(self.line).items()}
        told = float(rival[1]) - asked
        return Aftermath(woken.split()[0], rival[0], told, chain, aliases, slept)

    def promoter(
        self, version: int, fence: str, point: str, seconds: float, ahead: int = 0
    ) -> "subprocess.Popen[str]":
        arguments = (self.home.place, self.registry_name, self.line, version, fence, point, seconds)
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_clock(ahead), "PYTHONPATH": str(SCRIPT.parents[2])},
        )


def _clock(ahead: int) -> dict[str, str]:
    if not ahead:
        return {}
    assert FAKETIME, "expected libfaketime for a wrong clock; apt-get install faketime"
    return {"LD_PRELOAD": FAKETIME, "FAKETIME": f"{ahead:+d}s"}


def until_stopped(number: int) -> None:
    """Wait until a process has stopped itself."""
    until = time.monotonic() + 60
    while Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until, "it never came to the point at which it stops"
        time.sleep(0.02)
