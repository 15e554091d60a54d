"""What trouble looks like on a console."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from imagegen.lab.console import check_console, clean_text, find_trouble, last_lines, wait_for_console
from imagegen.lab.errors import BootFailureError


@dataclass
class FakeMachine:
    text: str
    name: str = "one"
    alive: bool = True

    def is_alive(self) -> bool:
        return self.alive

    def read_console(self) -> str:
        return self.text


@pytest.mark.parametrize(
    "line",
    [
        "[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        'You are in emergency mode. After logging in, type "journalctl -xb" to view',
        "ALERT!  UUID=0d6a does not exist.  Dropping to a shell!",
        "error: no such device: 0d6a-11.",
        "grub rescue> ",
        "BdsDxe: No bootable option or device was found.",
        "No bootable device.",
    ],
)
def test_trouble_is_found_in_the_middle_of_a_boot(line: str) -> None:
    text = f"\x1b[2J\x1b[1;1HBooting\r\n{line}\r\nmore\r\n"
    assert find_trouble(text) == line.strip()


@pytest.mark.parametrize(
    "line",
    [
        "quickstart login: ",
        "[ 10.0] systemd[1]: emergency.target not started",
        "kubelet: Error: no such file",
    ],
)
def test_an_ordinary_line_is_no_trouble(line: str) -> None:
    assert find_trouble(line) is None


def test_escapes_and_empty_lines_are_not_shown() -> None:
    assert clean_text("\x1b[1;32mfine\x1b[0m\r\n") == "fine\n"
    assert last_lines("\n".join([*(f"line {n}" for n in range(50)), "", " "]), 2) == "line 48\nline 49"


def test_a_wait_ends_as_soon_as_everything_was_written(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("first\nsecond\n")
    assert wait_for_console(log, ["second", "first"], 0.0) == "first\nsecond\n"


def test_a_panic_ends_a_wait_at_once_with_the_last_lines(tmp_path: Path) -> None:
    lines = "".join(f"line {n}\n" for n in range(100))
    machine = FakeMachine(f"{lines}Kernel panic - not syncing: Attempted to kill init!\n")
    with pytest.raises(BootFailureError) as caught:
        wait_for_console(tmp_path / "one.log", "login:", 3600.0, machine)
    shown = str(caught.value).splitlines()
    assert shown[0] == "one does not boot: Kernel panic - not syncing: Attempted to kill init!"
    assert len(shown) == 41
    assert shown[1] == "line 61"


def test_a_machine_that_ended_ends_a_wait(tmp_path: Path) -> None:
    with pytest.raises(BootFailureError, match="one ended before it wrote 'login:'\nbye"):
        wait_for_console(tmp_path / "one.log", "login:", 3600.0, FakeMachine("bye\n", alive=False))


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(BootFailureError, match=r"one.log did not write 'login:' within 0.1 s; its console"):
        wait_for_console(tmp_path / "one.log", "login:", 0.1)


def test_checking_a_healthy_machine_returns_its_console() -> None:
    assert check_console(FakeMachine("fine")) == "fine"
    with pytest.raises(BootFailureError, match="one ended\nlast words"):
        check_console(FakeMachine("last words", alive=False))
