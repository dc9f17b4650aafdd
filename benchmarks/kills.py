"""kill -9 in the middle of each of the six steps, then `l2dm learn` again.

    python -m benchmarks.kills [--base pocket] [--work .bench-kills]

One undisturbed home is the reference: two concepts, the second one continues from the first; while
it learns the second, the bench notes when each step begins and ends. For every step a fresh copy
of the home after concept one learns concept two, is killed with its whole process group at a share
of that step's time (`promote` at several, since its writes come one after the other), and is
started again. Bar: the same release digest, no doubled version, the same metric points. Writes
docs/kills.md; exits 1 when the bar is missed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from components.services.line.run_journal import StepProgress, heard
from components.services.store.home import Home
from l2dm.pocket.world.scenes import TUNING_SEEDS, identity, photos
from pipelines.places.compilation import STEPS

LINE = "kills"
FIRST, SECOND = ("ada", "dog"), ("bolt", "car")
CLI = "from pipelines.commands.cli import main; main()"
SETTINGS = ("train.steps=40", "train.checkpoint_every=5", "prior.count=8", "memory.budget=16",
            "evaluate.pictures=4", "gate.min_identity=-1", "gate.max_forgetting=2",
            "gate.max_drift=2", "gate.max_text_loss=9")  # fmt: skip
SHARES = {"promote": (0.3, 0.5, 0.7, 0.9)}  # of a step's time; the others are killed at 0.6


@dataclass(frozen=True)
class End:
    """Where a home ended: digest of the last version, versions, steps of the points per metric."""

    digest: str
    versions: int
    points: dict[str, list[int]]


@dataclass(frozen=True)
class Row:
    """One kill. `reached`: what the log said last before it; `code`: of the second run."""

    step: str
    share: float
    reached: str
    code: int
    end: End


def main() -> None:
    """The reference, then the kills, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--work", type=Path, default=Path(".bench-kills"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--inspect", type=Path, help="only print where this home ended, as JSON")
    options = parser.parse_args()
    if options.inspect:
        print(json.dumps(asdict(_end(options.inspect))))
        return
    home, start = (options.work / "home").resolve(), options.work / "start"
    for folder in (home, start):  # what else lies there is somebody's
        shutil.rmtree(folder, ignore_errors=True)
    _submit(home, *FIRST)
    _finish(_learn(home, options.base), home)
    _submit(home, *SECOND)
    shutil.copytree(home, start)
    seconds = _timed(home, options.base)
    reference = _inspect(home)
    rows: list[Row] = []
    for step in STEPS:
        for share in SHARES.get(step, (0.6,)):
            shutil.rmtree(home)  # always the same path: the registry knows its files by it
            shutil.copytree(start, home)
            reached = _kill_during(step, seconds[step] * share, home, options.base)
            again = _learn(home, options.base)
            rows.append(Row(step, share, reached, again.wait(), _inspect(home)))
            print(rows[-1], flush=True)
            _write(options.docs / "kills.md", reference, rows)
    missed = [row for row in rows if row.reached.startswith("MISSED")]  # nothing was killed there
    sys.exit(bool(missed) or any(row.code != 0 or row.end != reference for row in rows))


def _submit(home: Path, name: str, noun: str) -> None:
    source = home.parent / "pictures" / name
    source.mkdir(parents=True)
    for index, picture in enumerate(photos(identity(TUNING_SEEDS[7], noun), 4, seed=1)):
        picture.save(source / f"{index}.png")
    arguments = ["submit", str(source), "--line", LINE, "--concept", name, "--class-noun", noun]
    subprocess.run([sys.executable, "-P", "-c", CLI, *arguments, "--home", str(home)], check=True)


def _learn(home: Path, base: str) -> "subprocess.Popen[bytes]":
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-P", "-c", CLI, "learn", "--line", LINE, "--home", str(home)]
    with open(home / "bench.log", "ab") as log:
        return subprocess.Popen(
            [*command, "--base", base, *settings], stdout=log, stderr=log, start_new_session=True
        )


def _finish(process: "subprocess.Popen[bytes]", home: Path) -> None:
    if process.wait() != 0:
        raise SystemExit(f"an undisturbed run failed; see {home}/bench.log")


def _timed(home: Path, base: str) -> Mapping[str, float]:
    """Learn undisturbed; wall seconds of each step from its first line to its last."""
    process, begins, ends = _learn(home, base), dict[str, float](), dict[str, float]()
    while process.poll() is None:
        for progress in _heard(home):
            times = begins if progress.text == "begins" else ends
            if progress.text == "begins" or progress.done == progress.total == 1:
                times.setdefault(progress.step, time.monotonic())
        time.sleep(0.05)
    _finish(process, home)
    return {step: ends[step] - begins[step] for step in STEPS}


def _kill_during(step: str, seconds: float, home: Path, base: str) -> str:
    """Kill the learner and its step so long after the step began; the log's last line by then."""
    process = _learn(home, base)
    while process.poll() is None:
        if any(one.step == step and one.text == "begins" for one in _heard(home)):
            time.sleep(seconds)
            break
        time.sleep(0.05)
    if process.poll() is not None:
        return "MISSED: it had ended"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    last = list(_heard(home))[-1]
    return f"{last.step}: {last.text}" if last.step == step else f"MISSED: in {last.step}"


def _heard(home: Path) -> Iterator[StepProgress]:
    log = Home.at(str(home)).run(LINE, SECOND[0]) / "log.txt"
    for line in log.read_text().splitlines() if log.is_file() else ():
        if (progress := heard(line)) is not None:
            yield progress


def _inspect(home: Path) -> End:
    """`_end` in a fresh process: mlflow keeps a database open for as long as a process lives."""
    command = [sys.executable, "-m", "benchmarks.kills", "--inspect", str(home)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return End(**json.loads(done.stdout.splitlines()[-1]))


def _end(home: Path) -> End:
    from components.services.tracking.connection import connect
    from pipelines.commands.target import Target

    versions = Target(home, LINE, "pocket").registry().versions(LINE)
    client = connect(Home.at(str(home))).MlflowClient()
    experiment = client.get_experiment_by_name(f"l2dm/{LINE}")
    points: dict[str, list[int]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        for key in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, key)
            points[f"{run.data.tags['l2dm.task_index']} {key}"] = sorted(
                point.step for point in history
            )  # a killed run's are written in another order; doubles stay visible
    return End(versions[-1].facts.digest, len(versions), dict(sorted(points.items())))


def _write(path: Path, reference: End, rows: list[Row]) -> None:
    wanted = sum(len(steps) for steps in reference.points.values())
    lines = [
        "# Killed in the middle, started again",
        "",
        "`python -m benchmarks.kills` learns a second concept, kills the whole process group with",
        "SIGKILL while one step works, and runs `l2dm learn` again.",
        "",
        f"Undisturbed: release {reference.digest[:12]}, {reference.versions} versions, "
        f"{wanted} metric points in {len(reference.points)} metrics.",
        "",
        "| killed in | at | last said | second run | release | versions | same metric points |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = "same" if row.end.digest == reference.digest else f"OTHER {row.end.digest[:12]}"
        count = sum(len(steps) for steps in row.end.points.values())
        points = "yes" if row.end.points == reference.points else f"NO: {count}"
        lines.append(
            f"| {row.step} | {row.share:.0%} | {row.reached} | exit {row.code} | {same} "
            f"| {row.end.versions} | {points} |"
        )
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
