"""One measured value against its target."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value; ``target`` is None for what is only told."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def is_missed(self) -> bool:
        if self.target is None:
            return False
        return self.value < self.target if self.at_least else self.value > self.target


def say(text: str) -> None:
    sys.stderr.write(f"{text} …\n")
