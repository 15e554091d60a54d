"""Speaks QEMU's machine protocol over its local socket: just enough to press buttons.

https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from imagegen.lab.errors import LabError

_PATIENCE_SECONDS = 10.0


def ask_qemu(path: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """Send one command and return QEMU's answer. Raises LabError when nobody answers or QEMU refuses."""
    try:
        with connect_local(path, _PATIENCE_SECONDS) as link, link.makefile("rwb") as stream:
            stream.readline()
            _ask(stream, "qmp_capabilities", {})
            answer = _ask(stream, command, arguments or {})
    except (OSError, ValueError) as error:
        raise LabError(f"QEMU does not answer at {path}: {error}") from error
    if "error" in answer:
        raise LabError(f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}")
    return answer["return"]


def _ask(stream: Any, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    stream.flush()
    while line := stream.readline():
        answer: dict[str, Any] = json.loads(line)
        if "event" not in answer:
            return answer
    raise ValueError("the connection ended")


def connect_local(path: Path, timeout: float) -> socket.socket:
    """A connection to a local socket, however long its path is: the kernel takes 107 bytes only."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        link.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        link.close()
        raise
    finally:
        os.close(folder)
    return link
