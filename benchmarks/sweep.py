"""Which weights of Eq. 4 and Eq. 6: swept on identities that no result is reported on.

    python -m benchmarks.sweep [--work .bench-sweep] [--seed 0] [--rows 0 1]

The stream of the core bench with identities of the tuning range, method l2dm, one line per setting
of alpha (replay), beta (prior) and gamma (distillation). Writes docs/sweep.md. The defaults of
`L2DMOptions` are the row whose concepts are nearest their pictures at the end. Resumable like the
core bench.
"""

import argparse
import logging
from pathlib import Path

from benchmarks.core import Line, run, scores_of
from l2dm.metrics import forgetting
from l2dm.pocket.world.scenes import TUNING_SEEDS

GRID = (  # alpha, beta, gamma
    (1.0, 0.5, 10.0),
    (1.0, 0.5, 3.0),
    (0.5, 0.5, 3.0),
    (0.2, 0.5, 5.0),
    (0.2, 0.25, 3.0),
    (1.0, 1.0, 1.0),
)
METRIC = "identity_similarity"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".bench-sweep"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=list(range(len(GRID))))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for weights in (GRID[row] for row in options.rows):
        run(_line(weights, options.seed), options.work, options.base)
        _write(options.work, options.docs, options.seed)


def _line(weights: tuple[float, float, float], seed: int) -> Line:
    replay, prior, distill = weights
    own = {"replay": replay, "prior": prior, "distill": distill}
    settings = {"train": {"method": "l2dm"}, "l2dm": own}
    return Line(f"a{replay}-b{prior}-g{distill}", seed, settings, TUNING_SEEDS)


def _write(work: Path, docs: Path, seed: int) -> None:
    rows = [
        "# Weights of L2DM's terms",
        "",
        "`python -m benchmarks.sweep`: the core bench's stream with identities of the tuning",
        f"range, seed {seed}. Similarities are cosines of the identity encoder. The defaults are",
        "the row that is best at the end; *lost of what was gained* is explained in results.md.",
        "",
        "| alpha (replay) | beta (prior) | gamma (distillation) | learned | at the end "
        "| lost of what was gained | relative forgetting | prior drift |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for weights in GRID:
        scores = scores_of(_line(weights, seed), work)
        if scores is None:
            rows.append("| " + " | ".join(map(str, weights)) + " | not run | | | | |")
            continue
        matrix = scores.record.matrices[METRIC]
        drift = [one.distance for one in scores.record.drift if one.row == scores.record.rows[-1]]
        found = (
            forgetting.learning_accuracy(matrix),
            forgetting.final_average(matrix),
            forgetting.pooled_relative_forgetting([matrix]),
            forgetting.relative_forgetting(matrix),
            sum(drift) / len(drift),
        )
        shown = ["none" if value is None else f"{value:.3f}" for value in found]
        rows.append("| " + " | ".join([*map(str, weights), *shown]) + " |")
    (docs / "sweep.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
