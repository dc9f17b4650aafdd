"""The process that starts the ranks and ends all of them when one dies: torchrun on one machine."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

DEATH = "death.json"  # in the job's folder: which process died first, and how
LOGS = "logs"  # in the job's folder: standard error of every rank
ORPHANED = 75  # exit code, EX_TEMPFAIL of sysexits.h: try again
GRACE = 5  # seconds between asking a process to end and killing it


def main() -> None:
    """Arguments: the folder of the job, how many processes."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    end_with_the_step()
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # a step that is started again goes on from its checkpoint
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / LOGS), redirects=Std.ERR),
        shutdown_timeout=GRACE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "l2dm.training.rank", str(folder))
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=_blame)
        death = {"rank": rank, "exitcode": failure.exitcode, "signal": failure.signal_name()}
        (folder / DEATH).write_text(json.dumps(death))
        sys.exit(1)


def _blame(failure: tuple[int, Any]) -> tuple[bool, bool, float]:
    """Who began: one that was killed, then one that failed, last those that were ended for it."""
    code = failure[1].exitcode
    return code == -signal.SIGTERM, code >= 0, failure[1].timestamp


def end_with_the_step() -> None:
    """End this process once the step is gone: then standard input comes to its end."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=wait, daemon=True).start()


def last_words(folder: Path, rank: int) -> str:
    """Standard error of a rank."""
    texts = sorted((folder / LOGS).rglob(f"{rank}/stderr.log"))
    return "".join(path.read_text(errors="replace") for path in texts).strip()


if __name__ == "__main__":
    main()
