"""The bake items of one role as a tar archive and two tables: all that a root file system gets besides
packages.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from imagegen.backends.settings import lower_settings
from imagegen.plan.components.preload import IMAGE_DIRECTORY
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    Package,
    Phase,
    Symlink,
    Unit,
    UnitState,
    User,
)

#: Ids of our own users and groups are given out from here, in the order of their names: packages take ids
#: from 999
#: downwards and from 100 upwards (Debian Policy 9.2.2), so this range stays free.
_FIRST_ID = 850

#: bytes that are copied at once
_PIECE = 1 << 20

#: the verified file on this machine that an item stands for
FindSource = Callable[[Binary | ContainerImage], Path]

Entry = Directory | File | Symlink | Binary | ContainerImage

_ACTIONS = {UnitState.ENABLED: "enable", UnitState.DISABLED: "disable", UnitState.MASKED: "mask"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What ``rootfs.RoleSystem`` takes: package names, tables in the form of ``customize.sh``, and
    entries for tar.
    """

    packages: tuple[str, ...]
    sysusers: str
    units: str
    entries: tuple[Entry, ...]


def entry_path(entry: Entry) -> str:
    """Where an entry lies on the machine; container images lie where the import service looks for them."""
    if isinstance(entry, ContainerImage):
        name = re.sub(r"[^A-Za-z0-9.-]", "_", entry.reference)
        return f"{IMAGE_DIRECTORY}/{name}.tar"
    return entry.path


def plan_payload(items: Iterable[Item], extra_files: Iterable[File] = ()) -> Payload:
    """Sort the bake items of a role by what the image builder does with them; ``extra_files`` are the
    image's own.
    """
    baked = [item for item in items if item.phase is Phase.BAKE]
    entries: list[Entry] = [
        item for item in baked if isinstance(item, Directory | File | Symlink | Binary | ContainerImage)
    ]
    entries += [*lower_settings(baked), *extra_files]
    return Payload(
        packages=tuple(sorted(item.name for item in baked if isinstance(item, Package))),
        sysusers=_render_sysusers(baked),
        units=_render_units(baked),
        entries=tuple(sorted(entries, key=lambda entry: (entry_path(entry).count("/"), entry_path(entry)))),
    )


def _render_sysusers(items: Iterable[Item]) -> str:
    """sysusers.d(5) lines with fixed ids: the same plan gives the same ids on every build."""
    groups = {item.name: item for item in items if isinstance(item, Group)}
    users = {item.name: item for item in items if isinstance(item, User)}
    ids = {name: _FIRST_ID + place for place, name in enumerate(sorted(groups.keys() | users.keys()))}
    lines = [f"g {name} {group.gid or ids[name]}" for name, group in sorted(groups.items())]
    for name, user in sorted(users.items()):
        ids_of = f"{user.uid or ids[name]}:{user.group}"
        lines.append(f'u {name} {ids_of} "{user.gecos}" {user.home} {user.shell}')
        lines += [f"m {name} {group}" for group in user.groups]
    return "".join(f"{line}\n" for line in lines)


def _render_units(items: Iterable[Item]) -> str:
    rows = sorted(
        (_ACTIONS[item.state], item.name)
        for item in items
        if isinstance(item, Unit) and item.state in _ACTIONS
    )
    return "".join(f"{action} {name}\n" for action, name in rows)


def write_payload(payload: Payload, find_source: FindSource, target: Path, *, epoch: int) -> None:
    """Write the entries as a tar archive; owners by name, every time ``epoch`` (seconds since 1970)."""
    with tarfile.TarFile(target, "w", format=tarfile.GNU_FORMAT, copybufsize=_PIECE) as archive:
        for entry in payload.entries:
            info = tarfile.TarInfo(entry_path(entry).removeprefix("/"))
            info.mtime = epoch
            match entry:
                case Directory():
                    info.type = tarfile.DIRTYPE
                    _set_owner(info, entry.mode, entry.owner, entry.group)
                    archive.addfile(info)
                case Symlink():
                    info.type, info.linkname = tarfile.SYMTYPE, entry.target
                    _set_owner(info, "0777", "root", "root")
                    archive.addfile(info)
                case File():
                    body = _bake_content(entry)
                    info.size = len(body)
                    _set_owner(info, entry.mode, entry.owner, entry.group)
                    archive.addfile(info, io.BytesIO(body))
                case Binary() | ContainerImage():
                    mode = "0755" if isinstance(entry, Binary) else "0644"
                    _set_owner(info, mode, "root", "root")
                    with open(find_source(entry), "rb") as handle:
                        info.size = handle.seek(0, 2)
                        handle.seek(0)
                        archive.addfile(info, handle)


def _set_owner(info: tarfile.TarInfo, mode: str, owner: str, group: str) -> None:
    info.mode = int(mode, 8)
    info.uname, info.gname = owner, group
    # Names count; a number is only used where the name is not known, and must not be root's there.
    info.uid = info.gid = 0 if owner == "root" else 65534


def _bake_content(file: File) -> bytes:
    """The literal body; bake items hold no references, which the plan's own checks make sure of."""
    return b"".join(
        part.encode() if isinstance(part, str) else _only_bytes(file, part) for part in file.content
    )


def _only_bytes(file: File, part: object) -> bytes:
    if not isinstance(part, bytes):
        raise TypeError(f"{file.path} is baked into an image and must not hold {part!r}")
    return part
