"""Assembles the raw disk around its root: partition table, EFI system partition, bootloader. Plain file
access.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from imagegen.backends.image.bootloader import (
    build_bios_core,
    build_efi_program,
    build_esp,
    write_bios_boot,
)
from imagegen.backends.image.partitions import DiskLayout
from imagegen.run import Runner, Tool

TOOLS = (Tool(name="sfdisk", package="fdisk", purpose="write the partition table"),)

_BLOCK = 1024 * 1024


def copy_sparse(source: Path, target: Path, offset: int) -> None:
    """Copy a file into ``target`` at ``offset`` bytes; holes stay holes."""
    with open(source, "rb") as reader, open(target, "r+b") as writer:
        size = os.fstat(reader.fileno()).st_size
        position = 0
        while position < size:
            try:
                position = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            end = os.lseek(reader.fileno(), position, os.SEEK_HOLE)
            copy_range(reader.fileno(), writer.fileno(), position, end - position, offset)
            position = end


def copy_disk(runner: Runner, source: Path, target: Path) -> None:
    """Copy a disk so that every block of zeros becomes a hole; an existing ``target`` keeps its mode."""
    runner.run(["cp", "--sparse=always", "--reflink=never", str(source), str(target)])


def copy_range(reader: int, writer: int, position: int, count: int, offset: int) -> None:
    """Copy ``count`` bytes from ``position`` on; in the target they lie ``offset`` bytes further back."""
    end = position + count
    while position < end:
        position += _copy_some(reader, writer, position, end - position, offset)


def _copy_some(reader: int, writer: int, position: int, count: int, offset: int) -> int:
    """Bytes copied, at least one: inside the kernel, which is several times quicker, where it can."""
    try:
        done = os.copy_file_range(reader, writer, count, position, offset + position)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        done = 0
    if done:
        return done
    return os.pwrite(writer, os.pread(reader, min(_BLOCK, count), position), offset + position)


def complete_disk(runner: Runner, layout: DiskLayout, disk: Path, *, epoch: int) -> None:
    """Write all that the raw disk ``disk`` needs around the root file system, which is in its place already.

    ``epoch`` (seconds since 1970) is every time stamp in the EFI system partition.
    """
    runner.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)],
        stdin=layout.as_sfdisk_script().encode(),
    )
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        work = Path(name)
        program = build_efi_program(runner, layout.root_uuid, work)
        os.utime(program, (epoch, epoch))
        esp = work / "esp.fat"
        build_esp(runner, program, layout.esp_volume_id, layout.esp.size_bytes, esp, epoch=epoch)
        copy_sparse(esp, disk, layout.esp.offset_bytes)
        write_bios_boot(disk, build_bios_core(runner, layout.root_uuid, work), layout)
