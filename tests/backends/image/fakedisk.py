"""The disk of a role around a folder of the test's own, as the recipe makes one, but without mmdebstrap."""

from __future__ import annotations

import subprocess
from pathlib import Path

from imagegen.backends.image import disk
from imagegen.backends.image.partitions import DiskLayout
from imagegen.run import Runner


def write_disk(tree: Path, layout: DiskLayout, target: Path, *, epoch: int) -> None:
    """A raw disk whose root file system holds ``tree``, with partition table and bootloader."""
    with open(target, "wb") as handle:
        handle.truncate(layout.size_bytes)
    argv = ["mke2fs", "-q", "-t", "ext4", "-U", layout.root_uuid, "-d", str(tree)]
    argv += ["-E", f"offset={layout.root.offset_bytes}", str(target), f"{layout.root.size_bytes >> 10}k"]
    subprocess.run(argv, check=True)
    disk.complete_disk(Runner(), layout, target, epoch=epoch)
