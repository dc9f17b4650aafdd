"""kill -9 in the middle of each of the six steps, then `l2dm learn` again.

    python -m benchmarks.kills [--base pocket] [--work .bench-kills]

One undisturbed home is the reference: two concepts, the second one continues from the first.
For every step a fresh copy of the home after concept one learns concept two, is killed with its
whole process group while that step works, and is started again. Bar: the same release digest, no
doubled version, no doubled metric point. Writes docs/kills.md; exits 1 when the bar is missed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from components.services.home import Home
from l2dm.pocket.world import TUNING_SEEDS, identity, photos
from pipelines.submit import STEPS

LINE = "kills"
FIRST, SECOND = ("ada", "dog"), ("bolt", "car")
CLI = "from pipelines.cli import main; main()"
SETTINGS = ("train.steps=40", "train.checkpoint_every=5", "prior.count=8", "memory.budget=16",
            "evaluate.pictures=4", "gate.min_identity=-1", "gate.max_forgetting=2",
            "gate.max_drift=2")  # fmt: skip


@dataclass(frozen=True)
class End:
    """Where a home ended: digest of the last version, versions, points per metric."""

    digest: str
    versions: int
    points: dict[str, int]


def main() -> None:
    """The reference, then one kill per step, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--work", type=Path, default=Path(".bench-kills"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    home, start = (options.work / "home").resolve(), options.work / "start"
    _submit(home, *FIRST)
    _learn(home, options.base).wait()
    _submit(home, *SECOND)
    shutil.copytree(home, start)
    _learn(home, options.base).wait()
    reference, seconds = _end(home), _seconds(home)
    rows, missed = [], False
    for step in STEPS:
        shutil.rmtree(home)  # always the same path: the registry knows its files by it
        shutil.copytree(start, home)
        reached = _kill_during(step, home, options.base, seconds[step])
        process = _learn(home, options.base)
        process.wait()
        found = _end(home)
        missed |= found != reference or process.returncode != 0
        same_points = found.points == reference.points
        rows.append((step, reached, found.digest[:12], found.versions, same_points))
        print(rows[-1], flush=True)
    _write(options.docs / "kills.md", reference, rows)
    sys.exit(int(missed))


def _submit(home: Path, name: str, noun: str) -> None:
    source = home.parent / "pictures" / name
    source.mkdir(parents=True)
    for index, picture in enumerate(photos(identity(TUNING_SEEDS[7], noun), 4, seed=1)):
        picture.save(source / f"{index}.png")
    arguments = ["submit", str(source), "--line", LINE, "--concept", name, "--class-noun", noun]
    subprocess.run([sys.executable, "-c", CLI, *arguments, "--home", str(home)], check=True)


def _learn(home: Path, base: str) -> "subprocess.Popen[bytes]":
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-c", CLI, "learn", "--line", LINE, "--home", str(home)]
    with open(home / "bench.log", "ab") as log:
        return subprocess.Popen(
            [*command, "--base", base, *settings], stdout=log, stderr=log, start_new_session=True
        )


def _kill_during(step: str, home: Path, base: str, seconds: float) -> str:
    """Kill the learner and its step, two thirds into the step's usual time; what the log said."""
    process = _learn(home, base)
    log = Home.at(str(home)).run(LINE, SECOND[0]) / "log.txt"
    text = ""
    while process.poll() is None:
        text = log.read_text() if log.is_file() else ""
        if any(step in line and "begins" in line for line in text.splitlines()):
            time.sleep(seconds * 2 / 3)
            break
        time.sleep(0.05)
    if process.poll() is not None:
        raise SystemExit(f"the run ended before {step} could be killed; see {home}/bench.log")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"{seconds * 2 / 3:.1f} s into the step"


def _end(home: Path) -> End:
    import mlflow

    from components.services.registry import require_version
    from pipelines.operations import Place

    registry = Place(home, LINE, "pocket").registry()
    versions = registry.versions(LINE)
    digest = require_version(registry, LINE, versions[-1].number).facts.digest
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"l2dm/{LINE}")
    points: dict[str, int] = {}
    for run in client.search_runs([experiment.experiment_id]):
        for key in run.data.metrics:
            if not key.startswith("cost/"):  # seconds differ; their number is compared below
                name = f"{run.data.tags['l2dm.task_index']} {key}"
                points[name] = len(client.get_metric_history(run.info.run_id, key))
    return End(digest, len(versions), points)


def _seconds(home: Path) -> dict[str, float]:
    from components.services import journal

    costs = journal.read_costs(Home.at(str(home)).run(LINE, SECOND[0]))
    return {step: cost.seconds for step, cost in costs.items()}


def _write(path: Path, reference: End, rows: list[tuple[str, str, str, int, bool]]) -> None:
    lines = [
        "# Killed in the middle, started again",
        "",
        "`python -m benchmarks.kills` learns a second concept, kills the whole process group with",
        "SIGKILL while one step works, and runs `l2dm learn` again.",
        "",
        f"Undisturbed: release {reference.digest[:12]}, {reference.versions} versions, "
        f"{sum(reference.points.values())} metric points.",
        "",
        "| killed in | when | release after the second run | versions | same metric points |",
        "|---|---|---|---|---|",
        *(f"| {step} | {when} | {digest} | {count} | {'yes' if same else 'NO'} |"
          for step, when, digest, count, same in rows),
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
