"""What produces the tables in docs/. Some of it drives the servers and fast runs of the tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
