"""A promoter stopped for 60 s inside its promotion, on real servers; its lease lasts 60 s.

    python -m benchmarks.paused [--seconds 60]

Two processes promote two versions that were both learned from the champion. The first is stopped
with SIGSTOP between reading the champion and writing the record, then between record and alias;
meanwhile its lease expires, the second takes the line over and promotes; the first is woken. The
second's clock is right, five minutes ahead, or five minutes behind (libfaketime).
radosgw, PostgreSQL and MLflow are started natively. Exits 1 on a double promotion or a wrong alias.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from benchmarks import ROOT
from benchmarks.chaos_processes import ECHO
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from tests.integration import servers
from tests.worlds.paused import Aftermath, Stage

BUCKET = "paused"
CHAMPIONS = {"record": 3, "alias": 2}  # where the first is stopped, and who must be champion then
CLOCKS = (0, 300, -300)  # seconds by which the second's clock is wrong


def main() -> None:
    """Both points and three clocks at once, on six lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the pause and of the lease")
    seconds = parser.parse_args().seconds
    os.environ["PYTHONPATH"] = str(ROOT)
    with servers.running() as (_, where), tempfile.TemporaryDirectory() as scratch:
        os.environ |= where.aws | {"MLFLOW_TRACKING_URI": where.mlflow, "L2DM_SCRATCH": scratch}
        servers.make_bucket(where, BUCKET)
        home, release = Home.at(f"s3://{BUCKET}/state"), Path(scratch) / "release"
        release.mkdir()
        (release / "manifest.json").write_text("{}")
        registry = MlflowRegistry(home, "pocket", ECHO)

        def play(case: tuple[str, int]) -> Aftermath:
            point, ahead = case
            line = f"at-{point}-{CLOCKS.index(ahead)}"
            return Stage(home, registry, "mlflow", line, release).play(
                point, seconds, seconds, ahead
            )

        cases = list(product(CHAMPIONS, CLOCKS))
        with ThreadPoolExecutor(len(cases)) as pool:
            after = list(pool.map(play, cases))
    wrong = False
    for (point, ahead), found in zip(cases, after, strict=True):
        champion = CHAMPIONS[point]
        wrong |= found.chain != ((0, 1), (1, champion))
        wrong |= found.aliases != {"champion": champion, "previous": 1}
        wrong |= not ahead - 1 <= found.told < ahead + 60
        chain = " ".join(f"{source}→{target}" for source, target in found.chain)
        ends = f"{found.slept:.0f} s | {ahead:+d} s | {found.sleeper} | {found.rival}"
        print(f"| before the {point} | {ends} | {chain} | {found.aliases} |")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
