"""The process that starts the ranks and ends all of them when one dies: torchrun on one machine."""

import signal
import sys
from pathlib import Path
from typing import Any

from l2dm.files import children

DEATH = "death.json"  # in the job's folder: which process died first, and how
LOGS = "logs"  # in the job's folder: standard error of every rank
GRACE = 5  # seconds between asking a process to end and killing it


def main() -> None:
    """Arguments: the folder of the job, how many processes."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    children.follow_input()
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
        program, *arguments = children.command("l2dm.training.rank", folder)
        elastic_launch(config, program)(*arguments)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=_blame)
        death = {"rank": rank, "exitcode": failure.exitcode, "signal": failure.signal_name()}
        children.write(folder / DEATH, death)
        sys.exit(1)


def _blame(failure: tuple[int, Any]) -> tuple[bool, bool, float]:
    """Who began: one that was killed, then one that failed, last those that were ended for it."""
    code = failure[1].exitcode
    return code == -signal.SIGTERM, code >= 0, failure[1].timestamp


def last_words(folder: Path, rank: int) -> str:
    """Standard error of a rank."""
    texts = sorted((folder / LOGS).rglob(f"{rank}/stderr.log"))
    return "".join(path.read_text(errors="replace") for path in texts).strip()


if __name__ == "__main__":
    main()
