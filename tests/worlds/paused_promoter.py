"""A process that promotes a version and stops itself in the middle, as if its machine slept.

    python paused_promoter.py PLACE REGISTRY LINE VERSION FENCE POINT SECONDS

REGISTRY: "mlflow", or the folder of a FolderRegistry. POINT: "record" (the champion was read, the
promotion is not written), "alias" (it is written, the aliases are not set) or "nowhere". SECONDS:
after how many a lease expires. FENCE: "take" waits for the line and takes it. Prints how it ended,
"promoted" or the name of the error, and what time its clock said at first.
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.services.line import leases
from components.services.line.leases import Leases
from components.services.line.promotion import settle
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import FolderRegistry
from l2dm.errors import L2dmError, LineBusy

ECHO = Path(__file__).with_name("echo_model.py")


def stops_before(act: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """The same action, at whose first call this process is stopped until somebody wakes it."""
    stopped: list[int] = []

    def wrapped(*arguments: Any, **more: Any) -> Any:
        if not stopped and when(*arguments):
            stopped.append(1)
            os.kill(os.getpid(), signal.SIGSTOP)
        return act(*arguments, **more)

    return wrapped


def main() -> None:
    place, kind, line, version, fence, point, seconds = sys.argv[1:]
    clock = time.time()
    warnings.simplefilter("ignore")
    leases.SECONDS = float(seconds)
    home = Home.at(place)
    registry: Any = MlflowRegistry(home, "pocket", ECHO) if kind == "mlflow" else None
    registry = registry or FolderRegistry(Path(kind))
    records = Records(home.store, line)
    if point == "record":
        records.append_next = stops_before(  # type: ignore[method-assign]
            records.append_next, lambda last, what: what == "promotion"
        )
    if point == "alias":
        registry.set_alias = stops_before(registry.set_alias, lambda *arguments: True)
    held = Leases(home.store)
    number = take(held, line) if fence == "take" else int(fence)
    try:
        settle(registry, records, line, int(version), lambda: held.check(line, number))
    except L2dmError as error:
        print(type(error).__name__, clock)
    else:
        print("promoted", clock)


def take(leases: Leases, line: str) -> int:
    while True:
        try:
            return leases.take(line, "rival").fence
        except LineBusy:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
