"""The developer's tools in ``.ci`` are importable here, as ``make`` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ci"))
