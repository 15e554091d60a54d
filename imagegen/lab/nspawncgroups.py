"""The cgroups of the quick tier's nodes: one folder a lab in every hierarchy, named after the process that
holds the lab's network, so that what a killed lab left behind is known as such.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from imagegen.lab.processes import Process
from imagegen.run import Runner

_CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "imagegen-lab."
_PATIENCE_SECONDS = 10.0


def name_group(holder: Process, node: str) -> str:
    """The cgroup of one node, relative to the root of a hierarchy."""
    return f"{_name_lab(holder)}/{node}"


def _name_lab(holder: Process) -> str:
    return f"{_PREFIX}{holder.pid}-{holder.ticks}"


def list_processes(group: str) -> set[int]:
    """The ids of all processes in a cgroup and below it."""
    found: set[int] = set()
    for place in _list_places(group):
        for procs in place.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in procs.read_text().split())
    return found


def read_cpu_seconds(group: str) -> float:
    """User and system time of everything that ever ran in the cgroup, in seconds; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int((_CGROUPS / "cpuacct" / group / "cpuacct.usage").read_text()) / 1e9
    with contextlib.suppress(OSError, IndexError):
        return int((_CGROUPS / group / "cpu.stat").read_text().split()[1]) / 1e6
    return 0.0


def remove_group(group: str) -> bool:
    """Remove a node's cgroups once they are empty, and its lab's after the last node; whether all are gone.

    Waits up to ten seconds for processes that are still ending.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while list_processes(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    gone = True
    for place in list(_list_places(group)):
        gone = _remove_tree(place) and gone
        with contextlib.suppress(OSError):
            place.parent.rmdir()
    return gone


def sweep_groups() -> list[str]:
    """Remove the cgroups of labs that are gone; returns their names."""
    removed = []
    for lab in sorted({place.name for place in _list_labs()}):
        pid, _, ticks = lab.removeprefix(_PREFIX).partition("-")
        if pid.isdigit() and ticks.isdigit() and not Process(int(pid), int(ticks)).is_alive():
            for place in [place for place in _list_labs() if place.name == lab]:
                _remove_tree(place)
            removed.append(lab)
    return removed


def _list_labs() -> Iterator[Path]:
    yield from _CGROUPS.glob(f"{_PREFIX}*")
    yield from _CGROUPS.glob(f"*/{_PREFIX}*")


def _list_places(group: str) -> Iterator[Path]:
    """The cgroup in every hierarchy that has it: the only one, or one a controller."""
    for place in (_CGROUPS / group, *(hierarchy / group for hierarchy in sorted(_CGROUPS.glob("*/")))):
        if place.is_dir():
            yield place


def _remove_tree(place: Path) -> bool:
    # The files in it are the kernel's; only folders can be removed, from the innermost outwards.
    for folder, _, _ in os.walk(place, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not place.exists()


def watch_lab(runner: Runner, holder: Process, log: Path) -> None:
    """Make the lab's cgroup, with a small process that removes it when ``holder`` ends, however it ends; once
    a lab.
    """
    root = next((place for place in sorted(_CGROUPS.glob("*/")) if (place / "cgroup.procs").exists()), None)
    is_unified = (_CGROUPS / "cgroup.controllers").exists()
    place = _CGROUPS if is_unified or root is None else root
    try:
        (place / _name_lab(holder)).mkdir()
    except FileExistsError:
        return
    argv = [sys.executable, "-m", "imagegen.lab.nspawncgroups", str(holder.pid), str(holder.ticks)]
    runner.start(argv, output=log)


def main(holder: Process) -> None:
    """Wait for the end of the process that holds a lab, and remove the cgroups of its nodes."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(holder.pid)
        if holder.is_alive():
            select.select([handle], [], [])
    lab = _name_lab(holder)
    nodes = {place.name for found in _list_labs() if found.name == lab for place in found.glob("*/")}
    for node in sorted(nodes):
        remove_group(f"{lab}/{node}")
    sweep_groups()


if __name__ == "__main__":
    main(Process(int(sys.argv[1]), int(sys.argv[2])))
