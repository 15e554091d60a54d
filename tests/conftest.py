"""What all tests share: no process in a unit test, and foreign tools on request."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.judges.tools import Tool, Unavailable, acquire_tool

# A shell that runs us in the background makes us, and all our children, deaf to SIGINT: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: tests with one of these markers may start processes
PROCESS_MARKERS = ("judge", "vm", "process")


def require_judge(name: str) -> Tool:
    """The foreign tool, or a skip that says why; with IMAGEGEN_REQUIRE_JUDGES=1 a failure instead."""
    try:
        return acquire_tool(name)
    except Unavailable as reason:
        if os.environ.get("IMAGEGEN_REQUIRE_JUDGES") == "1":
            pytest.fail(f"judge {name}: {reason}")
        pytest.skip(f"judge {name}: {reason}")


@pytest.fixture(autouse=True)
def _no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that starts a process is slow and depends on the machine: it must say so by a marker."""
    if not any(request.node.get_closest_marker(marker) for marker in PROCESS_MARKERS):

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("this test starts a process; mark it with @pytest.mark.process")

        monkeypatch.setattr(subprocess, "Popen", refuse)
