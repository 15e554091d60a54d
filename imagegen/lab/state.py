"""What the lab remembers between commands: its processes, its engine, its images. One JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagegen.lab.processes import Process

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """A machine that was started. ``started_at``: seconds since 1970."""

    process: Process
    started_at: float
    console_offset: int


@dataclass(slots=True, kw_only=True)
class LabState:
    """``boot_id`` tells whether this machine has been restarted since: then no process of ours is left.

    ``images`` maps a node to the identity of the golden image that its disk lies above.
    """

    cluster: str
    engine: str
    out: str
    boot_id: str
    started_at: float
    network: Process | None = None
    api_port: int = 0
    nodes: list[str] = field(default_factory=list)
    machines: dict[str, MachineRecord] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def read_boot_id() -> str:
    """Names the current run of this machine's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_state(path: Path) -> LabState | None:
    """The state, or None when there is none that this version can read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("version") != VERSION:
            return None
        network = data.pop("network")
        machines = {
            name: MachineRecord(
                process=Process(**one["process"]),
                started_at=one["started_at"],
                console_offset=one["console_offset"],
            )
            for name, one in data.pop("machines").items()
        }
        return LabState(**data, machines=machines, network=Process(**network) if network else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(path: Path, state: LabState) -> None:
    """Write the state; it appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    text = json.dumps({"version": VERSION, **dataclasses.asdict(state)}, indent=1, sort_keys=True)
    partial.write_text(f"{text}\n", encoding="utf-8")
    os.replace(partial, path)


def identify_image(path: Path) -> str:
    """Changes whenever the image is built anew."""
    found = path.stat()
    return f"{path}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"
