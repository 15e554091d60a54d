"""What a stock cloud image needs beyond cloud-init's own modules: tables for ``cloud-init/install`` and its
unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from imagegen.emit import emit_table, emit_unit
from imagegen.errors import ImagegenError
from imagegen.kubernetes.releases import Part, Releases
from imagegen.plan.items import (
    Binary,
    Directory,
    File,
    Item,
    Origin,
    Package,
    Phase,
    Symlink,
    Unit,
    UnitState,
)
from imagegen.resources import find_resource

UNIT = "imagegen-install.service"
PROGRAM = "/usr/local/lib/imagegen/install"
TABLES = "/etc/imagegen/install"
_DOWNLOAD_PACKAGES = frozenset({"ca-certificates", "curl"})
_DONE = "/var/lib/imagegen/install.done"

#: configuration that a daemon of a stock image has read before cloud-init wrote ours
_READ_EARLY = {"/etc/systemd/journald.conf.d/": "systemd-journald.service"}

_ORIGIN = Origin("backend cloudinit", reason="brings a stock cloud image to the state of a golden image")


def lower_install(items: Sequence[Item], releases: Releases, checksums: Mapping[str, str]) -> list[File]:
    """The script, its tables and its unit; nothing when ``items`` hold nothing that needs them.

    ``checksums`` maps a download's URL to its SHA-256 (from the lock file); without one the node compares
    with the sum that the release site publishes. Raises ImagegenError when there is neither.
    """
    tables = {
        "packages": [[name] for name in list_packages(items)],
        "parts": _list_parts(items, releases, checksums),
        "directories": _list_directories(items),
        "links": sorted([item.target, item.path] for item in items if isinstance(item, Symlink)),
        "units": _list_units(items),
    }
    if not any(tables.values()):
        return []
    files = [_file(PROGRAM, _read_script(), "0755"), _file(f"/etc/systemd/system/{UNIT}", _UNIT_TEXT)]
    files += [_file(f"{TABLES}/{name}", emit_table(rows)) for name, rows in tables.items() if rows]
    return files


def list_packages(items: Iterable[Item]) -> list[str]:
    """The packages that ``items`` ask for, and what the script downloads with when it downloads; sorted."""
    wanted = list(items)
    names = {item.name for item in wanted if isinstance(item, Package)}
    if any(isinstance(item, Binary) for item in wanted):
        names |= _DOWNLOAD_PACKAGES
    return sorted(names)


def _file(path: str, text: str, mode: str = "0644") -> File:
    return File(phase=Phase.BOOT, origin=_ORIGIN, path=path, content=(text,), mode=mode)


def _list_parts(items: Iterable[Item], releases: Releases, checksums: Mapping[str, str]) -> list[list[str]]:
    rows = []
    for item in items:
        if not isinstance(item, Binary):
            continue
        part = releases.part(item.part)
        member = item.member or (part.members[0] if part.kind != "raw" else "-")
        rows.append([part.url, _find_checksum(part, checksums), part.kind, member, item.path])
    return sorted(rows)


def _find_checksum(part: Part, checksums: Mapping[str, str]) -> str:
    checksum = checksums.get(part.url) or part.checksum_url
    if checksum is None:
        raise ImagegenError(
            f"{part.name} {part.version} has no checksum: its release site publishes none",
            hint="run `imagegen fetch` once: it writes the checksum into the lock file",
        )
    return checksum


def _list_directories(items: Iterable[Item]) -> list[list[str]]:
    """Parents come before what lies in them."""
    rows = [[item.mode, item.owner, item.group, item.path] for item in items if isinstance(item, Directory)]
    return sorted(rows, key=lambda row: row[3])


def _list_units(items: Iterable[Item]) -> list[list[str]]:
    rows: set[tuple[str, str]] = set()
    for item in items:
        if isinstance(item, File):
            rows |= {
                ("restart", unit) for prefix, unit in _READ_EARLY.items() if item.path.startswith(prefix)
            }
        if not isinstance(item, Unit):
            continue
        if item.state is UnitState.ENABLED:
            rows.add(("enable", item.name))
            if "@." not in item.name:
                # a daemon that its package has started runs with the package's configuration
                rows.add(("start" if item.content is not None else "restart", item.name))
        elif item.state is UnitState.DISABLED:
            rows.add(("disable", item.name))
        elif item.state is UnitState.MASKED:
            rows.add(("mask", item.name))
    return sorted(map(list, rows))


@cache
def _read_script() -> str:
    return find_resource("cloud-init", "install").read_text(encoding="utf-8")


#: Not run from runcmd itself: that happens once, and a download that failed must be tried again, also after a
#: reboot.
_UNIT_TEXT = emit_unit(
    [
        (
            "Unit",
            [
                ("Description", "Bring this machine to the state that its plan asks for"),
                ("Wants", "network-online.target"),
                ("After", "network-online.target cloud-config.target"),
                ("ConditionPathExists", f"!{_DONE}"),
                ("StartLimitIntervalSec", "0"),
            ],
        ),
        (
            "Service",
            [
                ("Type", "oneshot"),
                ("ExecStart", PROGRAM),
                ("Restart", "on-failure"),
                ("RestartSec", "10s"),
                ("TimeoutStartSec", "30min"),
            ],
        ),
        ("Install", [("WantedBy", "multi-user.target")]),
    ]
)
