"""Runs jobs on all processors that this process may use, and stops early when one fails or is interrupted."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

#: seconds that jobs get to clean up after an interruption
_PATIENCE = 2.0


def count_processors() -> int:
    """How many processors this process may use, which may be less than the machine has."""
    return len(os.sched_getaffinity(0))


def run_jobs(
    jobs: Iterable[Callable[[], object]], *, stop: Callable[[], None], is_hasty: bool = False
) -> None:
    """Run every job; raises what the first one that failed raised, after the running ones have ended.

    When ``is_hasty``, the first failure ends the others. On an interruption ``stop`` is called, which ends
    what the jobs wait for; then the interruption goes on.
    """
    waiting = deque(jobs)
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            try:
                job()
            except BaseException as error:
                errors.append(error)
                waiting.clear()

    count = min(len(waiting), count_processors())
    # daemons: one that computes a checksum must not keep an interrupted command from ending
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                if is_hasty and errors:
                    # again and again: a job may be about to start what has to end
                    stop()
    except BaseException:
        waiting.clear()
        stop()
        deadline = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    if errors:
        raise errors[0]
