"""Five pocket concepts in a row, two of them dogs: who forgets, who remembers, and what helps.

    python -m benchmarks.core [--variant sequential ...] [--seeds 0 1] [--work .bench] [--report]

Every line of the bench runs the six steps in this process, without the platform. Finished doors
are kept in --work, so a bench that was stopped goes on where it was; doors of another spec or base
are refused, since a table must not mix them. `--report` (or finishing) writes docs/results.md from
the doors that are there, misses included.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import folder as base_folder
from l2dm.errors import BadDoor
from l2dm.files import manifest
from l2dm.files.concept_json import FILE
from l2dm.pocket.world.scenes import TEST_SEEDS, Identity, identity, photos
from l2dm.releases import folder as releases
from l2dm.uploads.folder import write_upload

log = logging.getLogger("bench")

NOUNS = ("dog", "car", "cat", "dog", "teapot")
NAMES = ("ada", "bolt", "cleo", "dora", "edna")
STREAM = tuple(zip(NAMES, NOUNS, strict=True))
PICTURES = 5

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sequential": {"train": {"method": "sequential"}},
    "l2dm": {"train": {"method": "l2dm"}},
    "gated": {"train": {"method": "gated"}},
    "l2dm without distillation": {"train": {"method": "l2dm"}, "l2dm": {"distill": 0.0}},
    "l2dm without replay": {"train": {"method": "l2dm"}, "l2dm": {"replay": 0.0}},
    "l2dm without prior": {"train": {"method": "l2dm"}, "l2dm": {"prior": 0.0}},
    "l2dm random memory": {"train": {"method": "l2dm"}, "memory": {"selection": "random"}},
}


@dataclass(frozen=True)
class Line:
    """One run of a stream: settings on one seed, which also chooses among the identities.

    stream: name and class noun of every concept, in order.
    """

    variant: str
    seed: int
    settings: Mapping[str, Any]
    identities: range = TEST_SEEDS
    stream: tuple[tuple[str, str], ...] = STREAM

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.variant.replace(' ', '-')}-{self.seed}"

    @property
    def spec(self) -> specs.Spec:
        """The spec with the variant's settings."""
        return specs.parse({"seed": self.seed, **self.settings})


def line_of(variant: str, seed: int) -> Line:
    """A line of this bench."""
    return Line(variant, seed, VARIANTS[variant])


def main() -> None:
    """Run what is missing, then write the table."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if not options.report:
        for seed in options.seeds:
            for variant in options.variant:
                run(line_of(variant, seed), options.work, options.base)
    from benchmarks.core_report import write

    write(options.work, options.docs, options.base)


def run(line: Line, work: Path, base: str) -> None:
    """All tasks of one line; doors that are there already are kept."""
    home = work / line.name
    parent = home / "empty"
    # One line name for all variants: seeds derive from it, so variants share every random draw.
    called = f"bench-{line.seed}"
    _once(parent, doors.Release, lambda out: steps.empty_release(out, called, base))
    _require_base(parent, base)
    for number, (name, noun) in enumerate(line.stream, start=1):
        context = steps.Context(base, called, f"t{number:04d}", number - 1, line.spec)
        who = identity(line.identities[100 * line.seed + number], noun)
        upload = _upload(home / "inbox", context, who, doors.Concept(name, noun))
        parent = _task(home / context.task_id, parent, upload, context, work / "cache")


def _task(home: Path, parent: Path, upload: Path, context: steps.Context, cache: Path) -> Path:
    part: Mapping[str, Path] = {
        name: home / name
        for name in ("task", "prior", "memory", "adapter", "scores", "release", "work")
    }
    began = time.monotonic()
    task, prior, memory = part["task"], part["prior"], part["memory"]
    adapter, scores = part["adapter"], part["scores"]
    once = partial(_once, spec=context.spec)
    seconds = {
        "intake": once(task, doors.Task, lambda out: steps.intake(upload, parent, out, context)),
        "generate_prior": once(
            prior,
            doors.Prior,
            lambda out: steps.generate_prior(task, parent, out, context, cache=cache),
        ),
        "score_memory": once(
            memory, doors.Memory, lambda out: steps.score_memory(task, parent, out, context)
        ),
        "train": once(
            adapter,
            doors.Adapter,
            lambda out: steps.train(task, parent, prior, memory, out, context, work=part["work"]),
        ),
        "evaluate": once(
            scores,
            doors.Scores,
            lambda out: steps.evaluate(task, parent, prior, memory, adapter, out, context),
        ),
        "promote": once(
            part["release"],
            doors.Release,
            lambda out: steps.promote(task, parent, memory, adapter, scores, out, context),
        ),
    }
    _note_seconds(home / "seconds.json", seconds)
    verdict = manifest.read(part["release"], doors.Release).record.verdict
    log.info(
        "%s %s: %.0f s, gate %s",
        home.parent.name,
        context.task_id,
        time.monotonic() - began,
        "open" if verdict.open else "closed",
    )
    return part["release"]  # the bench goes on from every release, whatever the gate says


def _upload(inbox: Path, context: steps.Context, who: Identity, concept: doors.Concept) -> Path:
    folder = inbox / context.line / concept.name
    if not (folder / FILE).is_file():
        source = inbox.parent / "pictures" / concept.name
        source.mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(photos(who, PICTURES, seed=1)):
            picture.save(source / f"{index}.png")
        write_upload(folder, source, context.line, concept, context.spec.intake, {})
    return folder


def _once(
    folder: Path, kind: type[Any], make: Callable[[Path], object], spec: specs.Spec | None = None
) -> float | None:
    """Make a door unless it is there; seconds it took, None when it was. spec: what it must have.

    Stops at a door that another spec made: one table must not mix them.
    """
    try:
        found = manifest.read(folder, kind)
    except BadDoor:
        began = time.monotonic()
        make(folder)
        return time.monotonic() - began
    if spec is not None and found.spec != specs.recorded(spec):
        raise SystemExit(
            f"expected doors of this bench's spec in {folder}, found one made with another; "
            "move the folder of that line away to run it again"
        )
    return None


def _require_base(empty: Path, base: str) -> None:
    """Stop at a line that was begun on another base: one table must not mix them."""
    found = releases.adapter_of(empty).record.base
    if found != (wanted := base_folder.fingerprint(base_folder.locate(base))):
        raise SystemExit(
            f"expected a line on base {wanted} in {empty.parent}, found one on {found}; "
            "move that folder away to run it again"
        )


def _note_seconds(path: Path, seconds: Mapping[str, float | None]) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    known |= {name: value for name, value in seconds.items() if value is not None}
    path.write_text(json.dumps(known))


def scores_of(line: Line, work: Path) -> manifest.Door[doors.Scores] | None:
    """The scores after the last finished task of a line, if all five are finished."""
    release = work / line.name / f"t{len(NAMES):04d}" / "release"
    return releases.scores_of(release) if release.is_dir() else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--work", type=Path, default=Path(".bench"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--base", default="pocket")
    parser.add_argument("--report", action="store_true", help="only write the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
