"""Which format an image has, a partition, or a file system in a file; by its content, never by its name."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Literal

#: those that qemu-img turns into raw disks, as it calls them
QEMU_FORMATS = frozenset({"qcow2", "vmdk", "vdi", "vpc", "vhdx"})
#: a whole disk, with or without a partition table
DISK_FORMATS = QEMU_FORMATS | {"gce", "disk"}


def name_format(image: Path) -> str | None:
    """``qcow2``, ``vmdk``, ``vdi``, ``vpc``, ``vhdx``, ``ova``, ``gce``, ``iso``, ``ext``, ``fat``,
    ``squashfs``, ``disk``, or None for any other file; by content.
    """
    with open(image, "rb") as handle:
        head = handle.read(40 * 1024)
        handle.seek(max(0, image.stat().st_size - 512))
        tail = handle.read(512)
    if head[257:262] == b"ustar":
        return "ova" if _first_member(image, "r:").endswith(".ovf") else None
    if head.startswith(b"\x1f\x8b"):
        return "gce" if _first_member(image, "r:gz") == "disk.raw" else None
    if head[:8] == b"conectix" or tail[:8] == b"conectix":
        return "vpc"
    marks = (
        ("qcow2", b"QFI\xfb"),
        ("vmdk", b"KDMV"),
        ("vmdk", b"# Disk DescriptorFile"),
        ("vhdx", b"vhdxfile"),
    )
    for name, magic in marks:
        if head.startswith(magic):
            return name
    return "vdi" if head[0x40:0x44] == b"\x7f\x10\xda\xbe" else name_raw(head)


def name_raw(head: bytes) -> str | None:
    """What lies at the start of a raw disk, of a partition, or of a file system in a file."""
    if head[0x8001:0x8006] == b"CD001":
        return "iso"
    if head[1080:1082] == b"\x53\xef":
        return "ext"
    if head.startswith(b"hsqs"):
        return "squashfs"
    if head[510:512] == b"\x55\xaa":
        return "fat" if head[54:57] == b"FAT" or head[82:87] == b"FAT32" else "disk"
    return None


def _first_member(image: Path, mode: Literal["r:", "r:gz"]) -> str:
    try:
        with tarfile.open(image, mode) as archive:
            first = archive.next()
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return ""
    return first.name.removeprefix("./") if first is not None else ""
