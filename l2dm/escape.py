"""What people type or upload is data, wherever it is shown: one escape for every medium.

Nothing is lost by it: what would steer the medium is shown as characters. HTML is escaped by the
templates of `l2dm.reporting`, Prometheus' labels by its own client. Standard library only.
"""

import re

# Control characters, those that turn the reading direction, and halves of characters, as a file
# name that is no UTF-8 has them. Joiners stay: emoji are made with them.
_STEERING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_CONTROL = re.compile(f"[{_STEERING}]")
_CONTROL_OR_BREAK = re.compile(f"[\t\n{_STEERING}]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}

_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_MARKUP = re.compile(r"[\\`*_\[\]~|]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_BLOCK = re.compile(r"^(\d{0,9})([.)#+=:-])")  # a list, a heading, a rule: only where a text begins
_INDENT = re.compile(r"^ +")


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is longer than `most` characters, for a message."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def lines(text: str) -> str:
    """Text of several lines, for a terminal or a log: no character of it steers anything."""
    return _CONTROL.sub(_visible, text)


def line(text: str) -> str:
    """The same on one line: a break inside is shown, so that nobody adds lines of their own."""
    return _CONTROL_OR_BREAK.sub(_visible, text)


def markdown(text: str) -> str:
    """Text as part of Markdown, also of a table's cell: no markup, no HTML, no link is made of it.

    Works in what MLflow and Kubeflow show Markdown with: both know backslashes before these
    characters and the three entities, not all know more.
    """
    safe = _MARKUP.sub(r"\\\g<0>", line(text)).translate(_ENTITIES)
    safe = _INDENT.sub(lambda found: "\u00a0" * len(found[0]), safe)
    return _BLOCK.sub(r"\1\\\2", safe)


def code(text: str) -> str:
    """Text as a code span of Markdown, whatever it holds."""
    shown = line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    around = " " if len(fence) > 1 else ""
    return f"{fence}{around}{shown}{around}{fence}"


def _visible(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
