"""Jobs run side by side; the first failure and an interruption end the rest."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from imagegen.backends.image.parallel import run_jobs


def _do_nothing() -> None:
    pass


def test_every_job_is_done() -> None:
    done: list[int] = []
    run_jobs([lambda number=number: done.append(number) for number in range(20)], stop=_do_nothing)  # type: ignore[misc]
    assert sorted(done) == list(range(20))


def test_the_first_failure_is_raised_and_nothing_new_starts() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        raise RuntimeError(str(number))

    with pytest.raises(RuntimeError):
        run_jobs([lambda number=number: work(number) for number in range(1000)], stop=_do_nothing)  # type: ignore[misc]
    assert len(started) < 100


def test_the_first_failure_ends_what_the_others_wait_for_when_there_is_haste() -> None:
    stopped = threading.Event()

    def fail() -> None:
        raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        run_jobs([lambda: stopped.wait(60), fail], stop=stopped.set, is_hasty=True)
    assert stopped.is_set()


def test_an_interruption_does_not_wait_for_a_job_that_hears_nothing() -> None:
    stopped = threading.Event()
    for_ever = threading.Event()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([lambda: for_ever.wait(60) and None, lambda: for_ever.wait(60) and None], stop=stopped.set)
    assert stopped.is_set()
    assert time.monotonic() - start < 10
    for_ever.set()
