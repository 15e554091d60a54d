"""Sent to a node and run there as root: reads what the questions name, prints it as JSON, changes nothing.

Standard library only, and Python 3.7, because it runs with whatever Python the node has.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from typing import Any

_TYPES = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
_UNIT_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,Type,ConditionResult"
_LISTEN, _UNCONNECTED = "0A", "07"
_TIMEOUT_SECONDS = 60


def collect(questions: dict[str, list[str]]) -> dict[str, Any]:
    """The answers to ``questions``: paths, units, sysctls, modules, packages by name."""
    return {
        "paths": {path: _read_path(path) for path in questions["paths"]},
        "units": _read_units(questions["units"]),
        "failed": _read_failed(),
        "sysctls": {key: _read_sysctl(key) for key in questions["sysctls"]},
        "stand_ins": _list_folder("/run/imagegen-lab/sysctl"),
        "modules": {name: _has_module(name) for name in questions["modules"]},
        "kernel": os.uname().release,
        "packages": _list_packages(),
        "users": [list(row) for row in pwd.getpwall()],
        "groups": [[row.gr_name, row.gr_passwd, row.gr_gid, list(row.gr_mem)] for row in grp.getgrall()],
        "passwords": _list_passwords(),
        "listening": _list_listening(),
        "images": _list_images(),
        "filter": _run("nft", "list", "table", "inet", "imagegen"),
        "cloud_init": _read_cloud_init(),
        "clock": _run("chronyc", "-n", "-c", "tracking").strip(),
        "swap": _read("/proc/swaps").splitlines()[1:],
        "machine_id": _read("/etc/machine-id").strip(),
    }


def _list_images() -> list[str]:
    """The images of containerd, and those of Docker where that is the runtime."""
    found = _run("/usr/local/bin/ctr", "--namespace", "k8s.io", "images", "ls", "-q").split()
    return found + _run("/usr/bin/docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _run(*argv: str) -> str:
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _read_path(path: str) -> dict[str, Any] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    kind = next((name for test, name in _TYPES if test(status.st_mode)), "special file")
    answer: dict[str, Any] = {"type": kind, "mode": stat.S_IMODE(status.st_mode), "size": status.st_size}
    answer["owner"] = _name(pwd.getpwuid, status.st_uid)
    answer["group"] = _name(grp.getgrgid, status.st_gid)
    if kind == "link":
        answer["target"] = os.readlink(path)
    elif kind == "file":
        answer["sha256"] = _hash(path)
    return answer


def _name(find: Any, number: int) -> str:
    try:
        return str(find(number)[0])
    except KeyError:
        return str(number)


def _hash(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


def _read_units(names: list[str]) -> dict[str, dict[str, str]]:
    """Properties by the name that was asked for; systemctl answers in the order of the names."""
    if not names:
        return {}
    text = _run("systemctl", "show", "--no-pager", "--property", _UNIT_PROPERTIES, "--", *names)
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    rows = [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]
    return dict(zip(names, rows))  # noqa: B905 - strict came with 3.10


def _read_failed() -> list[str]:
    text = _run("systemctl", "list-units", "--failed", "--no-legend", "--plain", "--no-pager")
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def _read_sysctl(key: str) -> str | None:
    # a point inside of a name (an interface such as eth0.5) is written as a slash, as in sysctl(8)
    path = "/proc/sys/" + key.replace(".", "/")
    return " ".join(_read(path).split()) if os.path.exists(path) else None


def _list_folder(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _has_module(name: str) -> bool:
    if os.path.isdir("/sys/module/" + name):
        return True
    built_in = _read(f"/lib/modules/{os.uname().release}/modules.builtin")
    return any(line.endswith(f"/{name}.ko") for line in built_in.splitlines())


def _list_packages() -> list[str]:
    """Names of installed packages, by dpkg or rpm."""
    text = _run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\\n")
    names = [line.split()[1] for line in text.splitlines() if line.startswith("installed ")]
    return names or _run("rpm", "-qa", "--qf", "%{NAME}\\n").split()


def _list_passwords() -> list[str]:
    """Who can log in by password, or without one; never what it is."""
    rows = [line.split(":") for line in _read("/etc/shadow").splitlines()]
    return [row[0] for row in rows if len(row) > 1 and not row[1].startswith(("!", "*"))]


def _list_listening() -> list[list[Any]]:
    """[protocol, address, port] of every socket that waits for others; loopback addresses begin with 127 or
    are ::1.
    """
    found = set()
    for protocol, state in (("tcp", _LISTEN), ("udp", _UNCONNECTED)):
        for family in ("", "6"):
            for line in _read(f"/proc/net/{protocol}{family}").splitlines()[1:]:
                fields = line.split()
                if len(fields) > 3 and fields[3] == state:
                    address, _, port = fields[1].partition(":")
                    found.add((protocol, _decode_address(address), int(port, 16)))
    return [list(one) for one in sorted(found)]


def _decode_address(text: str) -> str:
    """An address of /proc/net: words of 32 bits in the machine's own byte order."""
    words = [bytes.fromhex(text[place : place + 8])[::-1] for place in range(0, len(text), 8)]
    data = b"".join(words)
    if len(data) == 4:
        return ".".join(str(byte) for byte in data)
    if data[:12] == b"\0" * 10 + b"\xff\xff":
        return ".".join(str(byte) for byte in data[12:])
    if data == b"\0" * 15 + b"\1":
        return "::1"
    return ":".join(data[place : place + 2].hex() for place in range(0, 16, 2))


def _read_cloud_init() -> dict[str, Any]:
    try:
        status: dict[str, Any] = json.loads(_read("/run/cloud-init/status.json") or "{}")
        result: dict[str, Any] = json.loads(_read("/run/cloud-init/result.json") or "{}")
    except ValueError:
        return {"finished": False, "errors": ["its status cannot be read"]}
    errors = list(result.get("v1", {}).get("errors", []))
    for stage in status.get("v1", {}).values():
        errors += stage.get("errors", []) if isinstance(stage, dict) else []
    return {"finished": bool(result), "errors": sorted(set(map(str, errors)))}


def main() -> None:
    """Answer the questions of the last line of the program's own text, which the sender appends."""
    json.dump(collect(json.loads(QUESTIONS)), sys.stdout)


#: replaced by the sender
QUESTIONS = "{}"
