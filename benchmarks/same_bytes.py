"""Does one task learned again give the same bytes, with the threads that users have?

    python -m benchmarks.same_bytes --runs 10 --threads 1 2 4

Every run is a process of its own that learns one concept on the pocket base; beside it a second
process keeps a core busy, because what depends on which thread comes first shows only then. Prints
a table: how many runs, how many different adapters. Exits 1 when a row has more than one.
"""

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from l2dm import doors
from l2dm import spec as specs
from l2dm.bases.model import load_base
from l2dm.bases.prompts import TEMPLATES
from l2dm.files import manifest
from l2dm.methods.lesson import Lesson, Pool
from l2dm.pocket.world.scenes import TUNING_SEEDS, identity, photos
from l2dm.training.fit import fit
from l2dm.training.learn import method_of

# It ends with whoever started it, however that happens.
NEIGHBOUR = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(10_000))"


def main(arguments: list[str] | None = None) -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--method", default="gated")
    parser.add_argument("--one", action="store_true", help="learn once and print the digest")
    chosen = parser.parse_args(arguments)
    if chosen.one:
        torch.set_num_threads(chosen.threads[0])
        print(adapter_digest(chosen.method, chosen.steps))
        return 0
    print("| method | threads | runs | different adapters |\n|---|---|---|---|")
    worst = 1
    for threads in chosen.threads:
        found = digests(chosen.method, threads, chosen.steps, chosen.runs)
        print(f"| {chosen.method} | {threads} | {len(found)} | {len(set(found))} |", flush=True)
        worst = max(worst, len(set(found)))
    return int(worst > 1)


def digests(method: str, threads: int, steps: int, runs: int) -> list[str]:
    """One digest per process; a neighbour keeps a core busy meanwhile."""
    options = ("--one", "--threads", threads, "--steps", steps, "--method", method)
    command = [sys.executable, "-m", "benchmarks.same_bytes", *map(str, options)]
    with _busy_neighbour():
        return [
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
            for _ in range(runs)
        ]


def adapter_digest(method: str, steps: int) -> str:
    """SHA-256 of every weight and row that was learned, as float bytes in the order of names."""
    spec = specs.parse({"train": {"method": method, "steps": steps, "checkpoint_every": 0}})
    model = load_base("pocket", device=torch.device("cpu"))
    pictures = [np.array(one) for one in photos(identity(TUNING_SEEDS[1], "dog"), 5, seed=1)]
    latents = model.encode(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    rex = doors.Concept("rex", "dog")
    plain = (("a photo of a dog",),) * len(latents)
    with tempfile.TemporaryDirectory() as folder:
        nothing = doors.Adapter("none", "none", (), model.fingerprint, "")
        lesson = Lesson(
            rex,
            manifest.write(Path(folder) / "empty", nothing, lambda _: None),
            new=Pool(latents, (tuple(one.format(rex.phrase) for one in TEMPLATES),) * len(latents)),
            replay=Pool(latents, plain),
            prior=Pool(latents, plain),
            seed=1,
        )
        learned, _ = fit(method_of(spec), model, lesson, spec.train)
    found = hashlib.sha256()
    for name, tensor in sorted({**learned.weights, **learned.rows}.items()):
        found.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def _busy_neighbour() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(os.getpid())]) as neighbour:
        try:
            yield
        finally:
            neighbour.kill()


if __name__ == "__main__":
    sys.exit(main())
