"""What the operating system refuses while a file is written, as an OSError with the file's path.

An error of writing to an open file names none. safetensors and torch raise errors of their own: a
full disk would read as a fault of the tensors, and of the upload that they were learned from.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def told_where(path: Path) -> Iterator[None]:
    """Around what writes to the file at `path`: an OSError that names no file names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def told_as_system(path: Path) -> Iterator[None]:
    """Around what writes tensors at or below `path`. Raises OSError; other errors stay."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if not (found := _NUMBER.search(str(error))):
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error
    except RuntimeError as error:  # of torch.save, while the file's own error was being handled
        if not isinstance(why := error.__context__, OSError):
            raise
        raise OSError(why.errno, why.strerror, str(path)) from error
