"""Disk images of every format as raw files, and their partitions; refuses those that refer to other files."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool, require_tools
from imagegen.verify.formats import QEMU_FORMATS

_QEMU_IMG = Tool(name="qemu-img", package="qemu-utils", purpose="read a disk image")
_SFDISK = Tool(name="sfdisk", package="fdisk", purpose="read a partition table")
TOOLS = (_QEMU_IMG, _SFDISK)
#: a program that reads a broken image may never end
_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One entry of a partition table; ``number`` counts from 1, the rest is in bytes."""

    number: int
    start: int
    size: int


def make_raw(runner: Runner, image: Path, kind: str | None, work: Path) -> Path:
    """A disk as a raw file: the image itself or a copy in ``work``; raises ImagegenError when it is none."""
    if kind == "gce":
        return _unpack_gce(image, work)
    if kind in QEMU_FORMATS:
        return _convert(runner, image, kind, work)
    if kind not in ("disk", "ext"):
        raise ImagegenError(f"{image} is not a disk image that is known here")
    return image


def _unpack_gce(image: Path, work: Path) -> Path:
    with tarfile.open(image, "r:gz") as archive:
        member = archive.next()
        if member is None or not member.isreg() or member.size > 1 << 41:
            raise ImagegenError(f"{image}: disk.raw is not a file of up to 2 TiB")
        extract_member(archive, member, work, "disk.raw")
    return work / "disk.raw"


def _convert(runner: Runner, image: Path, kind: str | None, work: Path) -> Path:
    """A raw, sparse copy; refuses images that would make qemu-img read other files of this machine."""
    require_tools([_QEMU_IMG])
    shown = runner.run(["qemu-img", "info", "--output=json", "-f", str(kind), str(image)], timeout=60)
    info: dict[str, Any] = json.loads(shown.stdout)
    special = info.get("format-specific", {}).get("data", {})
    extents = [e.get("filename") for e in special.get("extents", ())]
    if info.get("backing-filename") or special.get("data-file") or any(Path(e) != image for e in extents):
        raise ImagegenError(
            f"{image} needs other files to be complete", hint="make one file of it: qemu-img convert"
        )
    raw = work / "disk.raw"
    runner.run(
        ["qemu-img", "convert", "-f", str(kind), "-O", "raw", str(image), str(raw)], timeout=_TIMEOUT_SECONDS
    )
    return raw


def extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str) -> None:
    """Write a regular member as ``folder/name``, whatever the archive calls it; holes stay holes."""
    member.name = name
    # Python 3.11.2, which Debian 12 has, knows no filters: https://docs.python.org/3/library/tarfile.html#hints
    archive.extraction_filter = getattr(tarfile, "data_filter", lambda info, path: info)
    archive.extract(member, folder)


def list_partitions(runner: Runner, raw: Path) -> list[Partition]:
    """What a raw disk is divided into, in the order of its table. Raises MissingToolError, CommandError."""
    require_tools([_SFDISK])
    table = json.loads(runner.run(["sfdisk", "--json", str(raw)], timeout=60).stdout)["partitiontable"]
    sector = int(table.get("sectorsize", 512))
    return [
        Partition(number=number, start=int(part["start"]) * sector, size=int(part["size"]) * sector)
        for number, part in enumerate(table["partitions"], 1)
    ]
