"""Stops the servers of a process that ends, however it ends.

Reads `+group` and `-group` lines; when the input closes, ends every group that is left and removes
the folder it was given.
"""

import os
import shutil
import signal
import sys
import time

GRACE_SECONDS = 10


def main() -> None:
    """Wait for the end of the input, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: list[int] = []
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.append(group)
        else:
            groups.remove(group)
    for group in reversed(groups):
        send(group, signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    while any(send(group, 0) for group in groups) and time.monotonic() < until:
        time.sleep(0.05)
    for group in groups:
        send(group, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def send(group: int, number: int) -> bool:
    """Whether there was somebody to send a signal to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


main()
