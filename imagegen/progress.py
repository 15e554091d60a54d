"""What long work says about itself: events, apart from how anybody shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepStarted:
    """``total`` is the number of units of work, or None when it is not known."""

    step: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StepAdvanced:
    """``completed`` units of the step are done; ``what`` names the last one."""

    step: str
    completed: int
    what: str = ""


@dataclass(frozen=True, slots=True)
class StepSkipped:
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """``note`` is one short clause, such as ``4 nodes``."""

    step: str
    note: str = ""


Event = StepStarted | StepAdvanced | StepSkipped | StepDone
Listener = Callable[[Event], None]


@dataclass(slots=True)
class Step:
    """One step under way; ``done`` is told when the ``with`` block ends without an exception."""

    name: str
    _tell: Listener
    completed: int = 0
    note: str = ""

    def advance(self, what: str = "", units: int = 1) -> None:
        self.completed += units
        self._tell(StepAdvanced(self.name, self.completed, what))

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._tell(StepDone(self.name, self.note))


@dataclass(frozen=True, slots=True)
class Progress:
    """Tells a listener what is going on; ``Progress()`` tells nobody."""

    listener: Listener = field(default=lambda event: None)

    def step(self, name: str, total: int | None = None) -> Step:
        """Start a step; use it as a context manager: ``with progress.step("writing seeds", 4) as step:``."""
        self.listener(StepStarted(name, total))
        return Step(name, self.listener)

    def skip(self, name: str, reason: str) -> None:
        self.listener(StepSkipped(name, reason))


SILENT = Progress()
