"""Runs a program and says what it cost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds on the clock, seconds of all processors, and the peak of resident memory in MiB."""

    wall: float
    cpu: float
    peak_mib: float


def run_measured(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run to the end, output to ``cwd/log``; raises SystemExit when the program fails.

    ``env`` is added to our own environment. What earlier programs have left to be written is written first.
    """
    log = cwd / "log"
    os.sync()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.chdir(cwd)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(handle, stream)
        try:
            words = [os.fspath(word) for word in argv]
            os.execvpe(argv[0], words, os.environ | dict(env or {}))  # noqa: S606 - ours, by full path
        except OSError:
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{' '.join(map(str, argv))} failed:\n{log.read_text()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_best(
    argv: Sequence[str | Path], *, cwd: Path, times: int, env: Mapping[str, str] | None = None
) -> Cost:
    """The quickest of several runs: what the program costs when nothing else disturbs it."""
    return min((run_measured(argv, cwd=cwd, env=env) for _ in range(times)), key=lambda cost: cost.wall)
