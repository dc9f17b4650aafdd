"""Lifelong customization of text-to-image diffusion models: the library. Knows no platform.

Read `doors.py` first (every record that crosses a step), then `steps.py` (the six steps).
"""

__version__ = "0.1.0"
