"""Shows progress events: a bar on a terminal for steps longer than a second, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Running:
    """A step under way. ``total`` None: nobody knows how much there is to do."""

    started: float
    total: int | None
    completed: int = 0
    task: TaskID | None = None
    timer: threading.Timer | None = None


class ProgressView:
    """Listens to the events of ``imagegen.progress``. A timer draws the bar of a step that says nothing."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._steps: dict[str, _Running] = {}
        self._last_line = time.monotonic()
        self._bars: Bars | None = None
        self._lock = threading.RLock()

    def on_event(self, event: Event) -> None:
        with self._lock:
            match event:
                case StepStarted(step, total):
                    self._start(step, total)
                case StepAdvanced(step, completed):
                    self._advance(step, completed)
                case StepSkipped(step, reason):
                    self._terminal.detail(f"{step}: skipped, {reason}")
                case StepDone(step, note):
                    self._finish(step, note)

    def stop(self) -> None:
        """Take the bars off the screen, for a message or for good."""
        with self._lock:
            for running in self._steps.values():
                if running.timer is not None:
                    running.timer.cancel()
                running.task = None
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    def _start(self, step: str, total: int | None) -> None:
        self._terminal.detail(f"{step} …")
        running = _Running(time.monotonic(), total)
        self._steps[step] = running
        if _has_screen():
            running.timer = threading.Timer(_PATIENCE_SECONDS, self._draw, (step,))
            running.timer.daemon = True
            running.timer.start()

    def _advance(self, step: str, completed: int) -> None:
        running = self._steps.get(step)
        if running is None:
            return
        running.completed = completed
        now = time.monotonic()
        if now - running.started < _PATIENCE_SECONDS:
            return
        if _has_screen():
            self._draw(step)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self._terminal.say(f"{step}: {completed:,}{f' of {running.total:,}' if running.total else ''}")

    def _draw(self, step: str) -> None:
        with self._lock:
            running = self._steps.get(step)
            if running is None:
                return
            if self._bars is None:
                self._bars = _make_bars(no_color=not self._terminal.has_color(sys.stderr))
                self._bars.start()
            if running.task is None:
                running.task = self._bars.add_task(step, total=running.total)
            self._bars.update(running.task, completed=running.completed)

    def _finish(self, step: str, note: str) -> None:
        running = self._steps.pop(step, None)
        if running is None:
            return
        if running.timer is not None:
            running.timer.cancel()
        if self._bars is not None and running.task is not None:
            self._bars.remove_task(running.task)
            if not self._bars.tasks:
                self.stop()
        seconds = time.monotonic() - running.started
        text = f"{step}: {note or 'done'} ({seconds:.1f} s)"
        if seconds >= _PATIENCE_SECONDS:
            self._terminal.say(text)
        else:
            self._terminal.detail(text)


def _has_screen() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _make_bars(*, no_color: bool) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, no_color=no_color),
        transient=True,
    )
