"""Computes something beside other work, without anybody having to wait for it in the end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def start_ahead(compute: Callable[[], Result]) -> Future[Result]:
    """Start ``compute`` in a thread of its own; what it returns or raises is the future's.

    The thread is a daemon, unlike those of an executor: an interrupted command does not wait for it.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(compute())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
