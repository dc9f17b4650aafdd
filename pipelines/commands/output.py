"""Lines that people and scripts read: results on standard output, notes on standard error.

Names, reasons and messages come from people, uploads and other programs: whatever is written here
goes through `l2dm.escape` first, so that a terminal shows it and does not obey it.
"""

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from l2dm import escape, redaction


class PlainLog(logging.Formatter):
    """Log lines whose values steer no terminal, also those of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """See Formatter."""
        return escape.lines(redaction.redacted(super().format(record)))


def guard_streams() -> None:
    """Let no character end a program: what a stream cannot encode is shown by its number."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:  # the one that writes warnings while nobody set up others
        logging.lastResort.setFormatter(PlainLog())


def tell(text: str) -> None:
    """A line of the result, or several."""
    _write(sys.stdout, escape.lines(text))


def tell_paths(paths: Iterable[str]) -> None:
    """Files that were written, one a line, as they are called."""
    for path in paths:
        _put(sys.stdout, escape.lines(redaction.in_path(path)))


def tell_json(value: Any) -> None:
    """The result for a script. Paths of what is there keep their names."""
    _put(sys.stdout, _json(_shown(value), indent=1))


def tell_json_line(value: Any) -> None:
    """One of many results for a script, on a line of its own."""
    _put(sys.stdout, _json(_shown(value)))


def tell_script(text: str) -> None:
    """A program as the result: its bytes are kept, unless a terminal shows it.

    What it holds is what was asked for: nothing of it is hidden, since it would not work then.
    """
    _put(sys.stdout, escape.lines(text) if sys.stdout.isatty() else text)


def tell_signed(value: Any) -> None:
    """Signed requests for a script. Their signatures are the result, so they are not hidden."""
    _put(sys.stdout, _json(value, indent=1))


def note(text: str) -> None:
    """A line that is not part of the result."""
    _write(sys.stderr, escape.lines(text))


def _shown(value: Any, called: str = "") -> Any:
    """Data of JSON's kinds without secrets. called: the name under which it stands."""
    if isinstance(value, str):
        if called and redaction.is_secret(called):
            return redaction.HIDDEN
        return redaction.in_path(value) if _is_there(value) else redaction.redacted(value)
    if isinstance(value, Mapping):
        return {_key(key): _shown(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one, called) for one in value]
    return value


def _key(key: Any) -> Any:
    """A key without the secrets that this process holds; what merely looks like one is a name."""
    return redaction.in_path(key) if isinstance(key, str) else key


def _is_there(text: str) -> bool:
    """Whether it is the path of something on this machine."""
    try:
        return os.sep in text and os.path.lexists(text)
    except ValueError:  # a null character
        return False


def _json(value: Any, indent: int | None = None) -> str:
    """Every character that is not printable ASCII stands there by its number."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def _write(stream: TextIO, text: str) -> None:
    _put(stream, redaction.redacted(text))


def _put(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
