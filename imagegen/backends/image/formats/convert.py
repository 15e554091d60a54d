"""qemu-img, and the random or time-dependent fields that it writes, set to values derived from the image."""

from __future__ import annotations

import re
import struct
import uuid
from pathlib import Path
from typing import BinaryIO

from imagegen.backends.image.partitions import derive_uuid
from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool

TOOLS = (Tool(name="qemu-img", package="qemu-utils", purpose="write disk formats"),)

_VDI_UUIDS = 0x188  # image, last snapshot, link, parent: 16 bytes each (VirtualBox VDICore.h)
_VHD_COOKIE = b"conectix"
_VHD_TIME, _VHD_CHECKSUM, _VHD_UUID = (
    24,
    64,
    68,
)  # Virtual Hard Disk Image Format Specification 1.0, "hard disk footer"
_VHD_EPOCH = 946684800  # 2000-01-01 UTC, from which VHD counts seconds


def convert_disk(
    runner: Runner, raw: Path, target: Path, fmt: str, *, compress: bool = False, options: str = ""
) -> None:
    """``qemu-img convert`` from raw."""
    argv = ["qemu-img", "convert", "-f", "raw", "-O", fmt]
    if compress:
        argv.append("-c")
    if options:
        argv += ["-o", options]
    runner.run([*argv, str(raw), str(target)])


def fix_vmdk(path: Path, image_id: str) -> None:
    """Set the content id (CID) in the descriptor of a sparse VMDK; qemu-img draws it at random, without
    padding.

    Raises ImagegenError when the file has no embedded descriptor with a CID.
    """
    content_id = derive_uuid(image_id, "vmdk/cid").replace("-", "")[:8].lstrip("0")
    with open(path, "r+b") as handle:
        head = handle.read(64 * 1024)
        start = head.find(b"# Disk DescriptorFile")
        end = head.find(b"\0", start)
        old = head[start:end]
        new, count = re.subn(rb"(?m)^CID=[0-9a-f]{1,8}$", f"CID={content_id}".encode(), old)
        if start < 0 or end < 0 or count != 1:
            raise ImagegenError(f"{path.name} has no descriptor with a content id")
        handle.seek(start)
        # The descriptor is padded with zeros to whole sectors, so one of another length still fits.
        handle.write(new.ljust(len(old), b"\0"))


def fix_vdi(path: Path, image_id: str) -> None:
    """Set the two identifiers that qemu-img draws at random; stored little-endian, as VirtualBox does."""
    with open(path, "r+b") as handle:
        handle.seek(_VDI_UUIDS)
        for what in ("vdi/image", "vdi/snapshot"):
            handle.write(uuid.UUID(derive_uuid(image_id, what)).bytes_le)


def fix_vhd(path: Path, image_id: str, epoch: int) -> None:
    """Set time stamp and unique id in both copies of the VHD footer and recompute their checksums.

    ``epoch`` is in seconds since 1970. Raises ImagegenError when there is no footer.
    """
    with open(path, "r+b") as handle:
        size = handle.seek(0, 2)
        places = [place for place in (0, size - 512) if _has_cookie(handle, place)]
        if not places:
            raise ImagegenError(f"{path.name} has no VHD footer")
        for place in places:
            handle.seek(place)
            footer = bytearray(handle.read(512))
            struct.pack_into(">I", footer, _VHD_TIME, max(0, epoch - _VHD_EPOCH))
            footer[_VHD_UUID : _VHD_UUID + 16] = uuid.UUID(derive_uuid(image_id, "vhd")).bytes
            footer[_VHD_CHECKSUM : _VHD_CHECKSUM + 4] = bytes(4)
            struct.pack_into(">I", footer, _VHD_CHECKSUM, ~sum(footer) & 0xFFFFFFFF)
            handle.seek(place)
            handle.write(footer)


def _has_cookie(handle: BinaryIO, place: int) -> bool:
    handle.seek(place)
    return handle.read(8) == _VHD_COOKIE
