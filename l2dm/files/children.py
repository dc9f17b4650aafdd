"""The Python processes that this project starts, and what they and their parents agree on.

A child finds this project wherever it is started: by itself Python looks into the current folder
first, and the `components/` and `pipelines/` of somebody's own project lie there. It ends when its
parent dies, so that no orphan writes to a free line. It reads its job from a file, tells progress
as marked lines of its output, and leaves its error as a file.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from l2dm import errors
from l2dm.errors import BadInput, L2dmError, StepFailed, system_words
from l2dm.files.manifest import write_text

LEARNER = "L2DM_LEARNER"  # environment: number of the process that a child follows into death
ORPHANED = 75  # exit code, EX_TEMPFAIL of sysexits.h: try again
FOUND = {"PYTHONSAFEPATH": "1"}  # environment, and of its own children: no look into the folder
QUIET = {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
MARK = "l2dm|"  # in front of the progress in a line of output
JOB = "job.json"  # in a child's folder: what it is to do
T = TypeVar("T")


def command(module: str, *arguments: object) -> list[str]:
    """What starts a module of this project as a program."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """What a child is started with: this process's own environment, and that it is its parent."""
    return {**os.environ, **more, **FOUND, LEARNER: str(os.getpid())}


@contextmanager
def inherited() -> Iterator[None]:
    """While it lasts, what another library starts is a child of ours and draws no bars in a log."""
    given = {**QUIET, **FOUND, LEARNER: str(os.getpid())}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def follow_learner(every: float = 1.0, before: Callable[[], object] = lambda: None) -> None:
    """End this process within `every` seconds after the one named in L2DM_LEARNER died.

    For children with other programs between them and whom they follow. before: done first, for what
    does not end with this process.
    """
    learner = os.environ.get(LEARNER)
    if learner:
        threading.Thread(target=_follow, args=(int(learner), every, before), daemon=True).start()


def follow_input() -> None:
    """End this process once nobody holds the other end of its standard input any more.

    For children that share one pipe with their parent: it ends them by closing it, or by dying.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=wait, daemon=True).start()


def print_progress(progress: Any) -> None:
    """Pass one progress record, a flat dataclass, to whoever started this process."""
    sys.stdout.write(f"{MARK}{json.dumps(asdict(progress))}\n")
    sys.stdout.flush()


def parse_progress(line: str, kind: type[T]) -> T | None:
    """The progress of a kind that a line of output holds; None for any other line."""
    _, mark, text = line.partition(MARK)
    if not mark:
        return None
    try:
        return kind(**json.loads(text))
    except (json.JSONDecodeError, TypeError):
        return None


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Leave facts in a file that is absent or whole: a job, an error, an end."""
    write_text(path, json.dumps(facts))


def read(path: Path) -> dict[str, Any]:
    """What `write` left."""
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An error as facts: name of its type, its problems."""
    problems: Sequence[str] = (str(error) or repr(error),)
    if isinstance(error, BadInput):
        problems = error.problems
    elif isinstance(error, OSError):
        problems = (system_words(error),)
    return {"kind": type(error).__name__, "problems": list(problems)}


def error_from_json(facts: Mapping[str, Any]) -> L2dmError:
    """The error of `error_to_json`, of its own type; StepFailed where it is none of ours."""
    kind, problems = getattr(errors, facts["kind"], StepFailed), facts["problems"]
    if not (isinstance(kind, type) and issubclass(kind, L2dmError)):
        kind = StepFailed
    return kind(problems) if issubclass(kind, BadInput) else kind("; ".join(problems))


def _follow(learner: int, every: float, before: Callable[[], object]) -> None:
    while True:
        try:
            os.kill(learner, 0)
        except ProcessLookupError:
            try:
                before()
            finally:
                os._exit(ORPHANED)
        time.sleep(every)
