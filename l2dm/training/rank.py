"""One of the processes that learn a concept together; `launch` starts it."""

import sys
from pathlib import Path

import torch

from l2dm.errors import L2dmError
from l2dm.files import children
from l2dm.training import launch
from l2dm.training.learn import learn
from l2dm.training.ranks import join


def main() -> None:
    """Its only argument is the folder of its job."""
    children.follow_input()
    folder = Path(sys.argv[1])
    job = launch.read_job(folder)
    rank = join()
    torch.set_num_threads(job.threads)
    on_step = children.print_progress if rank.rank == 0 else None
    try:
        learn(job.sources, job.out, job.context, rank, work=job.work, on_step=on_step)
    except L2dmError as error:
        launch.write_error(folder, rank.rank, error)
        sys.exit(1)
    rank.leave()


if __name__ == "__main__":
    main()
