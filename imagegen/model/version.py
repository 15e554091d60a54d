"""Release versions as ordered values."""

from __future__ import annotations

import re
from typing import NamedTuple

_PATTERN = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")


class Version(NamedTuple):
    """``major.minor.patch``; sorts and compares as numbers."""

    major: int
    minor: int
    patch: int

    @property
    def minor_text(self) -> str:
        """``1.36``"""
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse_version(text: str) -> Version:
    """Read ``1.36.4`` or ``v1.36.4``; raises ValueError for anything else."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"wanted an exact version such as 1.36.4, got {text!r}")
    return Version(*(int(part) for part in match.groups()))


def parse_cell(text: str) -> Version | None:
    """Read a cell of a version table: nothing, ``1.36`` or ``1.36.4``; raises ValueError for the rest."""
    if not text:
        return None
    return parse_version(text if text.count(".") == 2 else f"{text}.0")
