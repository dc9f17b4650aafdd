"""Reads picture files in a process of its own, so that none costs more than it may.

Checks of headers stop what is known to be slow or large. Whatever a decoder does beyond that ends
with this process: by the limits that the system holds it to, or by its own crash. It takes a tenth
of a second to start, since it imports Pillow and nothing else that is large.
"""

import base64
import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from l2dm.errors import BadUpload
from l2dm.uploads.crop import Cut
from l2dm.uploads.likeness import Appearance
from l2dm.uploads.pictures import SeenPicture, pixels, read

if TYPE_CHECKING:
    from l2dm.spec import IntakeSpec

OPENING = 3  # seconds of processor time for a picture, before its pixels are counted
PER_PIXEL = 7 / 50_000_000  # seconds more; the slowest good ones took 4 s for 50 million pixels
MAX_MEMORY = (
    1_500_000_000  # bytes of address space; the largest good ones took 0.8 of resident ones
)
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


class PictureReader:
    """Reads pictures one after the other; use it as a context manager."""

    def __init__(self, spec: "IntakeSpec", side: int = 0) -> None:
        self._job = {"limits": spec.model_dump(), "side": side}
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def read(self, path: Path) -> SeenPicture:
        """What is seen of a picture, as `pictures.read` sees it. Raises BadUpload.

        Raises OSError where the reader was killed by somebody (a system without memory does it) or
        does not start, or where the system does not give the file: no fault of the picture.
        """
        for _ in range(2):
            answer = self._ask(path)
            if answer:
                return _seen(json.loads(answer))
            code = -self._end()
            if code == signal.SIGXCPU:
                raise _too_much(path.name, "much longer than pictures of its size")
            if code in _CRASHES:
                raise _broken(path.name, signal.Signals(code).name)
        if code > 0:
            told = f"the process that reads a picture was ended twice (exit code {-code})"
            raise OSError(errno.ENOMEM, told, str(path))
        told = f"the process that reads a picture ends by itself (exit code {-code}), see above why"
        raise OSError(errno.ECHILD, told, str(path))

    def _ask(self, path: Path) -> str:
        """The reader's line about a picture; "" when it has ended instead."""
        if self._child is None:
            self._child = _start()
        assert self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write(json.dumps({"path": str(path), **self._job}) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._child.stdout.readline()

    def _end(self) -> int:
        """End the reader; its exit code, negative for a signal."""
        if self._child is None:
            return 0
        assert self._child.stdin and self._child.stdout
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        code = self._child.wait()
        self._child.stdout.close()
        self._child = None
        return code


def _start() -> "subprocess.Popen[str]":
    from l2dm.files import children

    return subprocess.Popen(
        children.command("l2dm.uploads.reader"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        env=children.environment(),
    )


def _broken(name: str, how: str) -> BadUpload:
    return BadUpload(
        f"picture {name!r}: expected one that can be read, found that its decoder breaks down "
        f"({how}); save it again or leave it out"
    )


def _too_much(name: str, what: str) -> BadUpload:
    return BadUpload(
        f"picture {name!r}: expected one that can be read in a few seconds and "
        f"{MAX_MEMORY // 1_000_000:,} MB, found that it takes {what}; save it again, smaller, or "
        "leave it out"
    )


def _seen(answer: dict[str, Any]) -> SeenPicture:
    if "problems" in answer:
        raise BadUpload(answer["problems"])
    if "withheld" in answer:
        raise OSError(*answer["withheld"])
    look, cut = answer["look"], answer["cut"]
    colours, near = (base64.b64decode(look[key]) for key in ("colours", "near"))
    seen = Appearance(look["format"], tuple(look["size"]), look["span"], colours, near)
    left, top, right, bottom = cut["box"]
    box = (left, top, right, bottom)
    square = base64.b64decode(answer["square"])
    return SeenPicture(seen, Cut(box, cut["lost"]), square, answer["note"])


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    path, limits = Path(job["path"]), cast("IntakeSpec", SimpleNamespace(**job["limits"]))
    try:
        _allow(OPENING)
        _allow(math.ceil(OPENING + PER_PIXEL * pixels(path, limits)))
        seen = read(path, limits, job["side"])
    except BadUpload as error:
        return {"problems": error.problems}
    except OSError as error:
        return {"withheld": (error.errno, error.strerror, str(path))}
    except MemoryError:
        return {"problems": _too_much(path.name, "more than that memory").problems}
    except Exception as error:  # noqa: BLE001 - whatever a decoder stumbles over is of the picture
        return {"problems": _broken(path.name, type(error).__name__).problems}
    look, cut = seen.look, seen.cut
    return {
        "look": {
            "format": look.format,
            "size": look.size,
            "span": look.span,
            "colours": base64.b64encode(look.colours).decode(),
            "near": base64.b64encode(look.near).decode(),
        },
        "cut": {"box": cut.box, "lost": cut.lost},
        "square": base64.b64encode(seen.square).decode(),
        "note": seen.note,
    }


def _allow(seconds: int) -> None:
    """So many seconds of processor time from now on; the system sends SIGXCPU after them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, hard))


def main() -> None:
    """Answer each line of the input, a path and limits, with a line: what is seen, or what not."""
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    with open(os.devnull, "w") as nowhere:  # from here on only decoders would grumble there
        os.dup2(nowhere.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS may refuse it: there the time alone is bounded
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
