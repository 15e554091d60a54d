"""Processes that outlive the command that started them: found again by id and start time, so that an id that
was given to another program is never mistaken for ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its id and its start time in clock ticks since the machine's own start."""

    pid: int
    ticks: int

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _read_stat(self.pid)
        return fields is not None and int(fields[19]) == self.ticks and fields[0] not in "ZX"

    def cpu_seconds(self) -> float:
        """User and system time so far, in seconds; 0 when it has ended."""
        fields = _read_stat(self.pid)
        if fields is None or int(fields[19]) != self.ticks:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, signal_number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for its end; whether it ended."""
        deadline = time.monotonic() + timeout
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return True

    def end(self, patience: float = 5.0) -> None:
        """Ask it to end, insist after ``patience`` seconds, and wait until it is gone."""
        self.send(signal.SIGTERM)
        if not self.wait(patience):
            self.send(signal.SIGKILL)
            self.wait(10.0)


def find_process(pid: int) -> Process | None:
    """The process that has this id now, or None."""
    fields = _read_stat(pid)
    return None if fields is None else Process(pid, int(fields[19]))


def list_children(pid: int) -> Iterator[Process]:
    """The processes whose parent is ``pid``."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            fields = _read_stat(int(entry.name))
            if fields is not None and int(fields[1]) == pid:
                yield Process(int(entry.name), int(fields[19]))


def _read_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on; the second may hold blanks and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
