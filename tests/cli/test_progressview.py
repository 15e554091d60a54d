"""Progress: nothing for short steps, plain lines without a terminal, a bar with one."""

from __future__ import annotations

import io
import sys
import time

import pytest

from imagegen.cli import progressview
from imagegen.cli.progressview import ProgressView
from imagegen.cli.terminal import Terminal
from imagegen.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progressview, "time", made)
    return made


def _work(terminal: Terminal, clock: Clock, seconds: float) -> None:
    view = ProgressView(terminal)
    with Progress(view.on_event).step("writing seeds", 40) as step:
        for number in range(40):
            clock.now += seconds / 40
            step.advance(f"node-{number}")
        step.note = "40 nodes"
    view.stop()


def test_short_steps_say_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _work(Terminal(), clock, 0.9)
    assert capsys.readouterr() == ("", "")


def test_verbose_says_every_step(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _work(Terminal(verbose=True), clock, 0.4)
    assert capsys.readouterr().err == "writing seeds …\nwriting seeds: 40 nodes (0.4 s)\n"


def test_long_steps_print_plain_lines_without_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    _work(Terminal(), clock, 40.0)
    assert capsys.readouterr().err.splitlines() == [
        "writing seeds: 10 of 40",
        "writing seeds: 20 of 40",
        "writing seeds: 30 of 40",
        "writing seeds: 40 of 40",
        "writing seeds: 40 nodes (40.0 s)",
    ]


def test_a_terminal_gets_a_bar_that_goes_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Tty()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    _work(Terminal(), clock, 4.0)
    assert "\x1b[" in screen.getvalue()
    assert screen.getvalue().endswith("writing seeds: 40 nodes (4.0 s)\n")


def test_a_step_that_says_nothing_gets_a_bar_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Tty()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progressview, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    view = ProgressView(Terminal())
    with Progress(view.on_event).step("issuing certificates"):
        time.sleep(1)
    view.stop()
    assert screen.getvalue().count("issuing certificates") > 1


def test_a_failed_step_is_not_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView(Terminal(verbose=True))
    with pytest.raises(ZeroDivisionError), Progress(view.on_event).step("dividing"):
        1 / 0  # noqa: B018
    assert capsys.readouterr().err == "dividing …\n"


def test_a_skipped_step_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(ProgressView(Terminal(verbose=True)).on_event).skip("seed ISO", "no node needs one")
    assert capsys.readouterr().err == "seed ISO: skipped, no node needs one\n"
