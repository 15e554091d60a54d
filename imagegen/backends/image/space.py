"""How much room a build needs and where, estimated before the work and told when a disk fills up anyway.

The factors were measured with Debian 13; they are meant to be a little too high, never too low.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagegen.errors import ImagegenError
from imagegen.model.cluster import DiskFormat
from imagegen.run import CommandError

MIB = 1024 * 1024
#: a base system as tar archive, and while it is being made (with package lists and downloads)
BASE_TAR_BYTES = 360 * MIB
BASE_ROOT_BYTES = 900 * MIB
#: of the root file system's contents: its ext4 image, its squashfs, and every format
_EXT4, _SQUASHFS = 1.2, 0.5
_FORMATS = {
    DiskFormat.RAW: 1.2,
    DiskFormat.QCOW2: 0.6,
    DiskFormat.VMDK: 1.2,
    DiskFormat.VDI: 1.2,
    DiskFormat.VHD: 1.25,
    DiskFormat.OVA: 1.2,
    DiskFormat.GCE: 0.6,
    DiskFormat.ISO: 0.6,
}


@dataclass(frozen=True, slots=True)
class Need:
    """``size`` bytes at ``place``, which need not exist yet, for ``what``."""

    place: Path
    size: int
    what: str

    def free(self) -> int:
        disk = os.statvfs(_existing(self.place))
        return disk.f_bavail * disk.f_frsize


def format_bytes(contents: int, disk_format: DiskFormat) -> int:
    """The room that one format takes while it is made; ``contents`` is the size of the root's files."""
    return int(contents * _FORMATS[disk_format])


def layer_bytes(contents: int, *, squashfs: bool) -> int:
    """The room that a role's root file system, or its disk, takes in the cache."""
    return int(contents * (_EXT4 + (_SQUASHFS if squashfs else 0)))


def check_space(needs: Iterable[Need]) -> None:
    """Raise ImagegenError when a file system has less free than what is needed on it in all."""
    for wanted in _group_by_disk(need for need in needs if need.size):
        if sum(need.size for need in wanted) > wanted[0].free():
            raise _no_space(wanted)


def _group_by_disk(needs: Iterable[Need]) -> list[list[Need]]:
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(_existing(need.place).stat().st_dev, []).append(need)
    return list(disks.values())


@contextmanager
def tell_full_disk(needs: Iterable[Need]) -> Iterator[None]:
    """Turn a failure, ours or a program's, because of a full disk into one that says which disk is full."""
    try:
        yield
    except (CommandError, OSError) as error:
        if not _is_no_space(error):
            raise
        raise _no_space(min(_group_by_disk(needs), key=lambda wanted: wanted[0].free())) from error


def _is_no_space(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = str(error)
    return os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text


def _no_space(needs: list[Need]) -> ImagegenError:
    """What to say of needs on one disk, and of what is free there now."""
    place, free, needed = needs[0].place, needs[0].free(), sum(need.size for need in needs)
    purposes = ", ".join(dict.fromkeys(need.what for need in needs))
    return ImagegenError(
        f"no space left in {place}: about {needed:,} bytes are needed for {purposes}, {free:,} are free",
        hint="make room there; what was finished before is kept and used by the next run",
    )


def _existing(place: Path) -> Path:
    place = place.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
