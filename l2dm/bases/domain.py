"""What a base draws at all: some know one small world only, and photographs mean nothing to them.

Such a base says so in `domain.json`, beside its `sampling.json`. Loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from l2dm.bases.checks.files import Files
from l2dm.errors import BadBase

FILE = "domain.json"
_FORM = '{"draws": "what it draws, in words", "photographs": true or false}'


@dataclass(frozen=True)
class Domain:
    """draws: what the base knows, in words. photographs: whether it can draw them."""

    draws: str
    photographs: bool


def domain_of(folder: Path) -> Domain | None:
    """The domain that a base's folder names; None when it names none. Raises BadBase."""
    files = Files(folder)
    if not files.has(FILE):
        return None
    found = files.json(FILE)
    draws, photographs = found.get("draws"), found.get("photographs")
    if not isinstance(draws, str) or not draws or not isinstance(photographs, bool):
        raise BadBase(f"{FILE}: expected {_FORM}, found {str(found)[:200]}")
    return Domain(draws[:200], photographs)
