"""Start the processes that learn one concept together, follow them, and end them together.

The step writes its job into a folder and starts `supervisor`, which is torchrun's own launcher: it
starts one `rank` per process and ends all of them when one dies. Standard input of them all is a
pipe that only the step holds, so none outlives it.
"""

import logging
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from l2dm import spec as specs
from l2dm.context import Context
from l2dm.errors import BadSpec, L2dmError, StepFailed
from l2dm.files import children
from l2dm.files.children import JOB
from l2dm.training.fit import OnStep, StepReport
from l2dm.training.learn import Sources
from l2dm.training.supervisor import DEATH, last_words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """What each of the processes is to do. threads: of torch, for one process on the CPU."""

    sources: Sources
    out: Path
    context: Context
    work: Path | None
    threads: int


def together(
    sources: Sources,
    out: Path,
    context: Context,
    *,
    work: Path | None = None,
    on_step: OnStep | None = None,
) -> None:
    """Learn a concept in `train.processes` processes; the first writes the door into `out`.

    Raises BadSpec when there are fewer GPUs than processes, the error of a process as its own
    type, and StepFailed when one ended without any.
    """
    count = context.spec.train.processes
    _require_devices(count)
    threads = max(1, torch.get_num_threads() // count)
    with tempfile.TemporaryDirectory(prefix="l2dm-train-") as scratch:
        folder = Path(scratch)
        write_job(folder, TrainingJob(sources, out, context, work, threads))
        supervisor = subprocess.Popen(
            children.command("l2dm.training.supervisor", folder, count),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its own log; the ranks' goes to files
            env=children.environment(),
            text=True,
        )
        try:
            assert supervisor.stdout is not None
            _listen(supervisor.stdout, on_step)
            if supervisor.wait() != 0:
                raise _why(folder, count)
        finally:
            _release(supervisor)


def write_job(folder: Path, job: TrainingJob) -> None:
    """Leave it where the processes look for it."""

    def place(path: Path) -> str:
        return str(path.absolute())

    data = {
        "sources": {name: place(path) for name, path in vars(job.sources).items()},
        "out": place(job.out),
        "context": {**vars(job.context), "spec": specs.to_dict(job.context.spec)},
        "work": place(job.work) if job.work else None,
        "threads": job.threads,
    }
    children.write(folder / JOB, data)


def read_job(folder: Path) -> TrainingJob:
    """What a process was started for."""
    data = children.read(folder / JOB)
    context = data["context"]
    return TrainingJob(
        sources=Sources(**{name: Path(place) for name, place in data["sources"].items()}),
        out=Path(data["out"]),
        context=Context(**{**context, "spec": specs.parse(context["spec"])}),
        work=Path(data["work"]) if data["work"] else None,
        threads=data["threads"],
    )


def write_error(folder: Path, rank: int, error: L2dmError) -> None:
    """Leave why a process ended."""
    children.write(folder / f"error-{rank}.json", children.error_to_json(error))


def _require_devices(count: int) -> None:
    found = torch.cuda.device_count()
    if found and found < count:
        raise BadSpec(
            f"spec train.processes: expected at most one process for each of the {found} GPUs of "
            f"this machine, found {count}; lower it, or hide the GPUs to train on the CPU"
        )


def _listen(lines: Iterable[str], on_step: OnStep | None) -> None:
    """Until every process has closed its end."""
    for line in lines:
        report = children.parse_progress(line, StepReport)
        if report and on_step:
            on_step(report)


def _release(supervisor: "subprocess.Popen[str]") -> None:
    """Close the pipe that holds them: whoever still runs ends."""
    assert supervisor.stdin is not None and supervisor.stdout is not None
    supervisor.stdin.close()
    supervisor.wait()
    supervisor.stdout.close()


def _why(folder: Path, count: int) -> L2dmError:
    for path in sorted(folder.glob("error-*.json")):
        return children.error_from_json(children.read(path))
    death = folder / DEATH
    if not death.is_file():
        return StepFailed(
            f"expected {count} processes to learn together, found that what starts them ended "
            "without a word; start the step again, or set train.processes=1"
        )
    facts = children.read(death)
    signal = f", {facts['signal']}" if facts["exitcode"] < 0 else ""
    said = last_words(folder, facts["rank"])
    log.error("process %s said:\n%s", facts["rank"], said)
    return StepFailed(
        f"expected {count} processes to learn together to the end, found that process "
        f"{facts['rank']} ended (exit code {facts['exitcode']}{signal}; last words: "
        f"{said.rpartition(chr(10))[2]!r}), and the others were ended with it; start the step "
        "again: it goes on from its last checkpoint"
    )
