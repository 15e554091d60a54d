"""The bake items of one set of roles as files for ``install.sh``: tables, and a tree of file bodies.

Everything comes from ``plan_payload``, which the direct build uses as well; there is no second list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imagegen.backends.image.hygiene import HYGIENE, Action, Hygiene
from imagegen.backends.image.payload import Entry, Payload, entry_path, plan_payload
from imagegen.backends.image.rootfs import DPKG_OPTIONS
from imagegen.emit import emit_json, emit_table
from imagegen.kubernetes.releases import Part
from imagegen.plan.items import (
    Binary,
    ContainerImage,
    Directory,
    File,
    Group,
    Item,
    Phase,
    Symlink,
    Unit,
    UnitState,
    User,
)

#: what a build by Packer leaves besides, because it runs in the machine itself
LEFTOVERS = (
    Hygiene(Action.REMOVE, "etc/sudoers.d/90-cloud-init-users", "the build user became root by it"),
    Hygiene(Action.REMOVE, "etc/sudoers.d/imagegen-build", "the build user became root by it"),
    Hygiene(
        Action.REMOVE, "etc/ssh/sshd_config.d/50-cloud-init.conf", "cloud-init's answer to the build's seed"
    ),
    Hygiene(Action.REMOVE, "etc/systemd/network/10-cloud-init-*.network", "network of the build machine"),
    Hygiene(Action.REMOVE, "etc/.updated var/.updated", "the build machine has started once"),
    Hygiene(Action.REMOVE, "var/lib/systemd/timesync var/lib/private/systemd", "state of the build machine"),
    Hygiene(Action.REMOVE, "var/lib/chrony/*", "the clock of the build machine"),
    Hygiene(Action.REMOVE, "var/log/chrony", "log of the build"),
    Hygiene(
        Action.REMOVE,
        "var/lib/systemd/linger var/lib/systemd/timers var/lib/systemd/rfkill/*",
        "state of the build machine",
    ),
    Hygiene(Action.REMOVE, "etc/apt/apt.conf.d/*cloud-init*", "cloud-init's answer to the build's seed"),
    Hygiene(Action.REMOVE, "etc/cloud/cloud.cfg.d/99-imagegen-build.cfg", "keeps cloud-init from every seed"),
    Hygiene(
        Action.REMOVE,
        "etc/cloud/cloud.cfg.d/9[09]-installer*.cfg etc/cloud/cloud.cfg.d/*subiquity-* "
        "etc/cloud/ds-identify.cfg",
        "the installer of Ubuntu keeps cloud-init from every seed, too",
    ),
    Hygiene(Action.REMOVE, "etc/netplan/*-installer-config.yaml", "network of the build machine"),
    Hygiene(
        Action.REMOVE,
        "etc/sysconfig/network-scripts/ifcfg-e* etc/NetworkManager/system-connections/*",
        "network of the build machine",
    ),
    Hygiene(Action.REMOVE, "etc/udev/rules.d/70-persistent-net.rules", "names cards of the build machine"),
    Hygiene(Action.REMOVE, "var/lib/dhclient/*", "leases of another machine"),
    Hygiene(Action.REMOVE, "root/*-ks.cfg var/log/anaconda var/log/installer", "traces of the installer"),
    Hygiene(Action.REMOVE, "var/cache/dnf/* var/cache/yum/* var/log/yum.log", "downloads of the build"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerPayload:
    """Files by their path below the build's folder, and what ``downloads`` must hold."""

    files: Mapping[str, bytes]
    binaries: tuple[Binary, ...]
    images: tuple[ContainerImage, ...]


def lower_payload(
    items: Iterable[Item],
    parts: Mapping[tuple[str, str], Part],
    checksums: Mapping[str, str],
    digests: Mapping[str, str],
    *,
    build_user: str,
) -> PackerPayload:
    """``payload/`` and ``verify/expected.json`` for one set of roles.

    ``checksums`` maps a part's URL, ``digests`` an image's reference to 64 hex digits; what is not pinned
    yet gets a ``-``, which ``install.sh`` refuses.
    """
    baked = tuple(item for item in items if item.phase is Phase.BAKE)
    payload = plan_payload(baked)
    binaries = tuple(entry for entry in payload.entries if isinstance(entry, Binary))
    images = tuple(entry for entry in payload.entries if isinstance(entry, ContainerImage))
    tables = {
        "packages": [[name] for name in payload.packages],
        "entries": _list_entries(payload.entries),
        "parts": [_part_row(binary, parts, checksums) for binary in binaries],
        "images": [[digests.get(i.reference) or "-", entry_path(i), i.reference] for i in images],
        "paths": [[entry_path(entry)] for entry in payload.entries],
    }
    files = {f"payload/{name}": emit_table(rows).encode() for name, rows in tables.items()}
    files["payload/sysusers.conf"] = payload.sysusers.encode()
    files["payload/units"] = payload.units.encode()
    files["payload/dpkg-options"] = "".join(f"{option}\n" for option in DPKG_OPTIONS).encode()
    files["payload/hygiene"] = _render_hygiene().encode()
    for entry in payload.entries:
        if isinstance(entry, File):
            files[f"payload/tree{entry.path}"] = read_body(entry)
    expected = describe_expected(baked, payload, parts, checksums, build_user=build_user)
    files["verify/expected.json"] = emit_json(expected).encode()
    return PackerPayload(files=files, binaries=binaries, images=images)


def read_body(file: File) -> bytes:
    """The literal body of a bake file; the plan's own checks make sure that it names no secret."""
    parts = [part.encode() if isinstance(part, str) else part for part in file.content]
    if not all(isinstance(part, bytes) for part in parts):
        raise TypeError(f"{file.path} is baked into an image and must not name a secret")
    return b"".join(part for part in parts if isinstance(part, bytes))


def _list_entries(entries: Iterable[Entry]) -> list[list[str]]:
    rows = []
    for entry in entries:
        match entry:
            case Directory():
                rows.append(["directory", entry.mode, entry.owner, entry.group, entry.path])
            case File():
                rows.append(["file", entry.mode, entry.owner, entry.group, entry.path])
            case Symlink():
                rows.append(["link", "0777", "root", "root", entry.path, entry.target])
    return rows


def _part_row(
    binary: Binary, parts: Mapping[tuple[str, str], Part], checksums: Mapping[str, str]
) -> list[str]:
    part = parts[binary.part, binary.version]
    member = binary.member or (part.members[0] if part.kind != "raw" else "-")
    return [checksums.get(part.url) or "-", part.kind, member, binary.path, part.url]


def _render_hygiene() -> str:
    return "".join(f"{rule.action} {rule.pattern}\n" for rule in (*LEFTOVERS, *HYGIENE))


def describe_expected(
    baked: Sequence[Item],
    payload: Payload,
    parts: Mapping[tuple[str, str], Part],
    checksums: Mapping[str, str],
    *,
    build_user: str,
) -> dict[str, object]:
    """What ``verify/test_image.py`` looks for on the finished machine."""
    return {
        "build_user": build_user,
        "entries": [_describe_entry(entry, parts, checksums) for entry in payload.entries],
        "packages": list(payload.packages),
        "units": {
            item.name: item.state.value
            for item in baked
            if isinstance(item, Unit) and item.state is not UnitState.STATIC
        },
        "users": [
            {
                "name": item.name,
                "uid": item.uid,
                "group": item.group,
                "groups": list(item.groups),
                "home": item.home,
                "shell": item.shell,
            }
            for item in baked
            if isinstance(item, User)
        ],
        "groups": [item.name for item in baked if isinstance(item, Group)],
        "hygiene": [
            {"action": rule.action.value, "pattern": rule.pattern, "why": rule.why}
            for rule in (*LEFTOVERS, *HYGIENE)
        ],
    }


def _describe_entry(
    entry: Entry, parts: Mapping[tuple[str, str], Part], checksums: Mapping[str, str]
) -> dict[str, str]:
    row = {"path": entry_path(entry), "owner": "root", "group": "root"}
    match entry:
        case Directory():
            return row | {"kind": "directory", "mode": entry.mode, "owner": entry.owner, "group": entry.group}
        case Symlink():
            return row | {"kind": "link", "mode": "0777", "target": entry.target}
        case File():
            row |= {"kind": "file", "mode": entry.mode, "owner": entry.owner, "group": entry.group}
            return row | {"sha256": hashlib.sha256(read_body(entry)).hexdigest()}
        case Binary():
            part = parts[entry.part, entry.version]
            # the sum of what is inside an archive is known only to who has it
            known = checksums.get(part.url, "") if part.kind == "raw" else ""
            return row | {"kind": "file", "mode": "0755", "sha256": known}
        case ContainerImage():
            return row | {"kind": "file", "mode": "0644"}
