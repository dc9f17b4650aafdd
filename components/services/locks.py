"""One learner per line: a lock that the kernel drops when its holder dies.

The lock is `flock` on a file that names the holder; a file that a dead process left behind holds
nothing, so a stale lock is simply taken over.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from l2dm.errors import LineBusy


@contextmanager
def held(path: Path, line: str) -> Iterator[None]:
    """Hold the lock of a line. Raises LineBusy, naming the holder, when somebody else does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LineBusy(
                f"expected line {line!r} to be free, found it held by {_holder(file)} ({path}); "
                "wait until that learner ends, or stop it and run this again"
            ) from None
        _sign(file)
        try:
            yield
        finally:
            file.truncate(0)


def holder(path: Path) -> str | None:
    """Who holds the lock now, in words; None when it is free."""
    if not path.exists():
        return None
    with open(path, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(file)
    return None


def _sign(file: IO[str]) -> None:
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "a process that has not signed yet"
