"""The image archive that Compute Engine imports: ``disk.raw``, whole GiB, in an old-GNU sparse tar, gzipped.

Source: "Manually import boot disks" of the Compute Engine documentation.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool

TOOLS = (Tool(name="tar", package="tar", purpose="write the archive for Compute Engine"),)

GIB = 1024**3


def write_gce_archive(runner: Runner, raw: Path, target: Path, work: Path, *, epoch: int) -> None:
    """Pack the raw disk as Compute Engine wants it; ``epoch`` is the member's time in seconds since 1970.

    Raises ImagegenError when the disk is not a whole number of GiB.
    """
    size = raw.stat().st_size
    if size % GIB:
        raise ImagegenError(f"Compute Engine takes disks of whole GiB, this one has {size} bytes")
    folder = work / "gce"
    folder.mkdir()
    member = folder / "disk.raw"
    member.hardlink_to(raw)
    archive = work / "gce.tar"
    form = ["--sparse", "--format=oldgnu", "--owner=root:0", "--group=root:0", "--mode=0644"]
    place = [f"--mtime=@{epoch}", "--file", str(archive), "--directory", str(folder), "disk.raw"]
    runner.run(["tar", "--create", *form, *place])
    member.unlink()
    folder.rmdir()
    # Level 6 as gzip(1); no name and no time in the header.
    with (
        open(archive, "rb") as source,
        open(target, "wb") as out,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, 1024 * 1024)
    archive.unlink()
