"""The image archive that Compute Engine imports: ``disk.raw``, whole GiB, in an old-GNU sparse tar, gzipped.

Source: "Manually import boot disks" of the Compute Engine documentation.
"""

from __future__ import annotations

from pathlib import Path

from imagegen.backends.image.disk import copy_disk
from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool

TOOLS = (
    Tool(name="tar", package="tar", purpose="write the archive for Compute Engine"),
    Tool(name="gzip", package="gzip", purpose="compress the archive for Compute Engine"),
)

GIB = 1024**3
_MEMBER = "disk.raw"


def write_gce_archive(runner: Runner, raw: Path, target: Path, work: Path, *, epoch: int) -> None:
    """Pack the raw disk as Compute Engine wants it; ``epoch`` is the member's time in seconds since 1970,
    ``work`` a scratch folder.

    Raises ImagegenError when the disk is not a whole number of GiB.
    """
    size = raw.stat().st_size
    if size % GIB:
        raise ImagegenError(f"Compute Engine takes disks of whole GiB, this one has {size} bytes")
    form = ["--sparse", "--format=oldgnu", "--owner=root:0", "--group=root:0", "--mode=0644"]
    form += [f"--mtime=@{epoch}"]
    # no name and no time in the header of gzip
    form += ["--use-compress-program=gzip -n", "--file", str(target.absolute())]
    # tar lists the holes, and what is one differs between file systems: in the copy every zero block is
    copy_disk(runner, raw, work / _MEMBER)
    runner.run(["tar", "--create", *form, "--directory", str(work), _MEMBER])
    (work / _MEMBER).unlink()
