"""Rewrites a unit for the systemd 219 of RHEL 7: what it does not know has another name there, or goes.

Left as they are, some would do harm: a group in ``SystemCallFilter=`` is no name there, so that a list of
groups allows nothing; ``Restart=`` makes a one-shot unit invalid; ``StateDirectory=`` makes no directory.
Read from load-fragment-gperf.gperf.m4, load-fragment.c and service.c of systemd-rhel 219-67.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: the first systemd that knows everything which components write
_MODERN = 245


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: directives that 219 does not know, and that have no other name there
UNKNOWN = _words(
    """
    IPAddressAllow IPAddressDeny KeyringMode LockPersonality MemoryDenyWriteExecute MemoryMin PrivateUsers
    ProcSubset ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs ProtectKernelModules
    ProtectKernelTunables ProtectProc RemoveIPC RestrictNamespaces RestrictRealtime RestrictSUIDSGID
    RuntimeDirectoryPreserve
    """
)
_RENAMED = {
    "MemoryMax": "MemoryLimit",
    "MemoryHigh": "MemoryLimit",
    "ReadWritePaths": "ReadWriteDirectories",
    "ReadOnlyPaths": "ReadOnlyDirectories",
    "InaccessiblePaths": "InaccessibleDirectories",
}
#: where a directory of systemd's is, by the directive that makes it
_DIRECTORIES = {"StateDirectory": "/var/lib", "LogsDirectory": "/var/log"}

_Directive = tuple[str, str]


def needs_fitting(systemd: int) -> bool:
    """Whether this version of systemd does not know some of what components write."""
    return systemd < _MODERN


def fit_unit(text: str) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """The unit for systemd 219, and the directories (path, mode, owner) that it does not make by itself."""
    sections = dict(_read_sections(text))
    service = sections.get("Service", [])
    directories = tuple(_list_directories(service))
    if service:
        sections["Service"] = list(_fit_service(service))
    head = sections.get("Unit", [])
    limits = [value for key, value in head if key == "StartLimitIntervalSec"]
    sections["Unit"] = [pair for pair in head if pair[0] != "StartLimitIntervalSec"]
    if limits and service:
        sections["Service"].append(("StartLimitInterval", limits[-1]))
    lines: list[str] = []
    for name, pairs in sections.items():
        lines += [f"[{name}]", *(f"{key}={value}" for key, value in pairs), ""]
    return "\n".join(lines), directories


def _read_sections(text: str) -> Iterator[tuple[str, list[_Directive]]]:
    """Sections with their directives; a value that goes on in the next line stays as it is."""
    pairs: list[_Directive] = []
    goes_on = False
    for line in text.splitlines():
        if goes_on:
            key, value = pairs[-1]
            pairs[-1] = (key, f"{value}\n{line}")
        elif line.startswith("["):
            pairs = []
            yield line.strip("[]"), pairs
        elif "=" in line:
            key, _, value = line.partition("=")
            pairs.append((key, value))
        goes_on = line.endswith("\\")


def _list_directories(service: Iterable[_Directive]) -> Iterator[tuple[str, str, str]]:
    values = dict(service)
    for key, parent in _DIRECTORIES.items():
        for name in values.get(key, "").split():
            yield f"{parent}/{name}", values.get(f"{key}Mode", "0755"), values.get("User", "root")


def _fit_service(service: list[_Directive]) -> Iterator[_Directive]:
    restarts = any(key == "Restart" and value != "no" for key, value in service)
    for key, value in service:
        if key in UNKNOWN or key.removesuffix("Mode") in _DIRECTORIES:
            continue
        match key:
            case "Type" if value == "exec" or (value == "oneshot" and restarts):
                yield key, "simple"
            case "ProtectSystem" if value == "strict":
                yield key, "full"
            case "RestrictAddressFamilies" if value == "none":
                yield key, "AF_UNIX"
            case "SystemCallFilter" if "@" in value:
                continue
            case "TimeoutStartSec" if value == "infinity":
                yield key, "0"
            case "CPUWeight":
                yield "CPUShares", str(max(2, int(value) * 1024 // 100))
            case "IOWeight":
                yield "BlockIOWeight", str(min(1000, max(10, int(value) * 5)))
            case _:
                yield _RENAMED.get(key, key), value
