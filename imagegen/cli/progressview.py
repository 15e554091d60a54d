"""Shows progress events: a bar on a terminal for steps longer than a second, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from imagegen.progress import Event, StepAdvanced, StepDone, StepSkipped, StepStarted

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from imagegen.cli.terminal import Terminal

#: steps shorter than this show nothing: a flash of a bar helps nobody
_PATIENCE_SECONDS = 1.0
#: without a terminal, a line is printed no more often than this
_LINE_SECONDS = 10.0


class ProgressView:
    """Listens to the events of ``imagegen.progress``."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._started: dict[str, float] = {}
        self._totals: dict[str, int | None] = {}
        self._last_line = time.monotonic()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def on_event(self, event: Event) -> None:
        match event:
            case StepStarted(step, total):
                self._started[step], self._totals[step] = time.monotonic(), total
                self._terminal.detail(f"{step} …")
            case StepAdvanced(step, completed, what):
                self._advance(step, completed, what)
            case StepSkipped(step, reason):
                self._terminal.detail(f"{step}: skipped, {reason}")
            case StepDone(step, note):
                self._finish(step, note)

    def stop(self) -> None:
        """Take the bars off the screen, for a message or for good."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}

    def _advance(self, step: str, completed: int, what: str) -> None:
        now = time.monotonic()
        if now - self._started.get(step, now) < _PATIENCE_SECONDS:
            return
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._draw(step, completed)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            total = self._totals.get(step)
            self._terminal.say(f"{step}: {completed}{f' of {total}' if total else ''}")

    def _draw(self, step: str, completed: int) -> None:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True, no_color=not self._terminal.has_color(sys.stderr))
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=console, transient=True)
            self._bars.start()
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=self._totals.get(step))
        self._bars.update(self._tasks[step], completed=completed)

    def _finish(self, step: str, note: str) -> None:
        seconds = time.monotonic() - self._started.pop(step, time.monotonic())
        if self._bars is not None and step in self._tasks:
            self._bars.remove_task(self._tasks.pop(step))
            if not self._tasks:
                self.stop()
        text = f"{step}: {note or 'done'} ({seconds:.1f} s)"
        if seconds >= _PATIENCE_SECONDS:
            self._terminal.say(text)
        else:
            self._terminal.detail(text)
