"""A promoter stopped for 60 s inside its promotion, on real servers; its lease lasts 60 s.

    python -m benchmarks.paused [--seconds 60]

Two processes promote two versions that were both learned from the champion. The first is stopped
with SIGSTOP between reading the champion and writing the record, then between record and alias;
meanwhile its lease expires, the second takes the line over and promotes; the first is woken.
radosgw, PostgreSQL and MLflow are started natively. Exits 1 on a double promotion or a wrong alias.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from integration import servers
from paused import Aftermath, Stage

from benchmarks import ROOT
from benchmarks.chaos_processes import ECHO
from components.services.home import Home
from components.services.mlflow_store import MlflowRegistry

BUCKET = "paused"


def main() -> None:
    """Both points at once, on two lines."""
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

        def play(point: str) -> Aftermath:
            return Stage(home, registry, "mlflow", f"at-{point}", release).play(
                point, seconds, seconds
            )

        with ThreadPoolExecutor(2) as pool:
            record, alias = pool.map(play, ("record", "alias"))
    for point, found in (("before the record", record), ("before the alias", alias)):
        chain = " ".join(f"{source}→{target}" for source, target in found.chain)
        ends = f"{found.slept:.0f} s | {found.sleeper} | {found.rival}"
        print(f"| {point} | {ends} | {chain} | {found.aliases} |")
    chains = (record.chain, alias.chain) == (((0, 1), (1, 3)), ((0, 1), (1, 2)))
    aliases = [{"champion": champion, "previous": 1} for champion in (3, 2)]
    sys.exit(not chains or [record.aliases, alias.aliases] != aliases)


if __name__ == "__main__":
    main()
