"""Lines that people and scripts read: results on standard output, notes on standard error."""

import json
import sys
from typing import Any


def tell(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell_json(value: Any) -> None:
    """The result for a script."""
    tell(json.dumps(value, indent=1))


def tell_json_line(value: Any) -> None:
    """One of many results for a script, on a line of its own."""
    tell(json.dumps(value))


def note(text: str) -> None:
    """A line that is not part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
