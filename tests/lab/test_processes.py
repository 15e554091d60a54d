"""Processes of a lab are found again by id and start time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from imagegen.lab.processes import Process, find_process

pytestmark = pytest.mark.process


@pytest.fixture
def sleeper() -> Iterator[Process]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as started:
        process = find_process(started.pid)
        assert process is not None
        yield process
        started.kill()


def test_a_process_gives_way_to_others(sleeper: Process) -> None:
    sleeper.give_way(7)
    assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == 7


def test_giving_way_after_the_end_is_nothing(sleeper: Process) -> None:
    sleeper.send(9)
    sleeper.wait(5.0)
    sleeper.give_way(7)
