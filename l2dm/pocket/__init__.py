"""The small world, its judge, and the base model that ships (nothing heavy is imported here)."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
