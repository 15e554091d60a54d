"""Reads the console of a machine and knows what trouble looks like there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from imagegen.lab.errors import BootFailureError

#: the last words of cloud-init: our own final_message
CLOUD_INIT_FINISHED = "imagegen: cloud-init finished"

_TROUBLE = re.compile(
    r"Kernel panic - not syncing"
    r"|You are in (?:emergency|rescue) mode"
    r"|Cannot open access to console, the root account is locked"
    r"|(?:ALERT!|Gave up waiting for root)"
    r"|No bootable device"
    r"|Unable to find a medium containing a live file system"
    r"|error: (?:no such (?:device|partition)|unknown filesystem|disk .* not found)"
    r"|grub rescue>"
    r"|BdsDxe: No bootable option"
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][AB0]|[78=>c])|\r|\x00")
_POLL_SECONDS = 0.25
_SHOWN_LINES = 40


class Watched(Protocol):
    """A machine as far as its console is concerned."""

    name: str

    def is_alive(self) -> bool: ...

    def read_console(self) -> str: ...


def clean_text(text: str) -> str:
    """Console text without colours, cursor movements and carriage returns."""
    return _ESCAPES.sub("", text)


def last_lines(text: str, count: int = _SHOWN_LINES) -> str:
    """The last lines that say something."""
    return "\n".join([line for line in clean_text(text).splitlines() if line.strip()][-count:])


def find_trouble(text: str) -> str | None:
    """The line that tells that this boot will not succeed, or None."""
    match = _TROUBLE.search(text)
    if match is None:
        return None
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    return clean_text(text[start : end if end >= 0 else len(text)]).strip()


def check_console(machine: Watched) -> str:
    """The console since the last start. Raises BootFailureError on trouble and when the machine has ended."""
    text = machine.read_console()
    trouble = find_trouble(text)
    if trouble is not None:
        raise _failure(f"{machine.name} does not boot: {trouble}", text)
    if not machine.is_alive():
        raise _failure(f"{machine.name} ended", text)
    return text


def wait_for_console(
    path: Path, wanted: str | Iterable[str], timeout: float, machine: Watched | None = None
) -> str:
    """Wait until every wanted text is in the console's log and return the log since the machine's start.

    ``timeout`` is in seconds. With ``machine``, trouble ends the wait at once. Raises BootFailureError with
    the last 40 lines.
    """
    texts = [wanted] if isinstance(wanted, str) else list(wanted)
    deadline = time.monotonic() + timeout
    while True:
        over = time.monotonic() >= deadline
        alive = machine is None or machine.is_alive()
        text = machine.read_console() if machine is not None else _read(path)
        missing = [one for one in texts if one not in text]
        if not missing:
            return text
        trouble = find_trouble(text)
        name = machine.name if machine is not None else path.name
        if trouble is not None:
            raise _failure(f"{name} does not boot: {trouble}", text)
        if not alive:
            raise _failure(f"{name} ended before it wrote {missing[0]!r}", text)
        if over:
            raise _failure(f"{name} did not write {missing[0]!r} within {timeout:g} s", text)
        time.sleep(_POLL_SECONDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _failure(what: str, text: str) -> BootFailureError:
    lines = last_lines(text)
    return BootFailureError(f"{what}\n{lines}" if lines else f"{what}; its console is empty")
