"""Unpacks file systems without root and without a mount: ext, FAT, squashfs; reads ISO 9660 in place."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool, require_tools
from imagegen.verify import freespace
from imagegen.verify.entries import Entry
from imagegen.verify.setids import restore_set_ids

_EXT = (
    Tool(name="debugfs", package="e2fsprogs", purpose="read an ext4 file system", version_arguments=("-V",)),
    Tool(name="e2fsck", package="e2fsprogs", purpose="check an ext4 file system", version_arguments=("-V",)),
)
_MCOPY = Tool(name="mcopy", package="mtools", purpose="read a FAT file system")
_UNSQUASHFS = Tool(
    name="unsquashfs",
    package="squashfs-tools",
    purpose="read a squashfs file system",
    version_arguments=("-version",),
)
TOOLS = (*_EXT, _MCOPY, _UNSQUASHFS)
#: a program that reads a broken file system may never end
_TIMEOUT_SECONDS = 1800.0


def extract_ext(runner: Runner, raw: Path, offset: int, tree: Path, *, set_ids: bool = False) -> list[str]:
    """Unpack the ext2/3/4 file system at ``offset`` bytes of ``raw`` into the empty folder ``tree``; owners
    are kept when root does it, and set-user-id bits with ``set_ids``. Returns what debugfs could not unpack.
    """
    require_tools(_EXT)
    device = f"{raw}?offset={offset}"
    check = runner.run(["e2fsck", "-fn", device], timeout=_TIMEOUT_SECONDS, check=False)
    # A broken folder with two entries of one name could lead debugfs out of the tree by a symbolic link, and
    # without its journal a file system that was cut off has old contents.
    if check.returncode or "skipping journal recovery" in check.stdout + check.stderr:
        device = str(_repair_ext(runner, raw, offset, tree.parent / "repaired.raw"))
    done = runner.run(
        ["debugfs", "-R", f"rdump / {tree.name}", device], cwd=tree.parent, timeout=_TIMEOUT_SECONDS
    )
    if set_ids:
        restore_set_ids(runner, device, tree)
    lines = done.stderr.splitlines()[1:]
    return [line for line in lines if "changing ownership" not in line]


def _repair_ext(runner: Runner, raw: Path, offset: int, copy: Path) -> Path:
    """Copy the file system at ``offset`` bytes of ``raw`` and mend the copy.

    It is a copy of the file system alone: e2fsck 1.47 loses the offset when it opens the device again behind
    the journal.
    """
    name = str(raw).replace(",", ",,")
    source = f"driver=raw,offset={offset},file.driver=file,file.filename={name}"
    runner.run(["qemu-img", "convert", "--image-opts", "-O", "raw", source, str(copy)])
    done = runner.run(["e2fsck", "-fy", str(copy)], timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode not in (0, 1):
        raise ImagegenError(f"the ext file system at byte {offset} cannot be repaired: {done.stdout[-300:]}")
    return copy


def extract_fat(runner: Runner, raw: Path, offset: int, tree: Path) -> list[str]:
    """Unpack the FAT file system at ``offset`` bytes of ``raw`` into the empty folder ``tree``; returns what
    could not be unpacked.
    """
    require_tools([_MCOPY])
    argv = ["mcopy", "-i", f"{raw}@@{offset}", "-s", "-n", "-Q", "::/", str(tree)]
    return runner.run(argv, timeout=_TIMEOUT_SECONDS, check=False).stderr.splitlines()


def extract_squashfs(runner: Runner, raw: Path, tree: Path) -> list[str]:
    """Unpack a squashfs file system into the empty folder ``tree``; returns what could not be unpacked."""
    require_tools([_UNSQUASHFS])
    argv = [
        "unsquashfs",
        "-no-progress",
        "-quiet",
        "-no-xattrs",
        "-ignore-errors",
        "-f",
        "-d",
        str(tree),
        str(raw),
    ]
    done = runner.run(argv, timeout=_TIMEOUT_SECONDS, check=False)
    return [] if done.returncode in (0, 2) else done.stderr.splitlines()


def copy_squashfs(entry: Entry, target: Path) -> bool:
    """Whether a file is a squashfs file system; if so, ``target`` becomes a copy of it."""
    with entry.open() as stream:
        if stream.read(4) != b"hsqs":
            return False
        stream.seek(0)
        with open(target, "wb") as writer:
            shutil.copyfileobj(stream, writer)
    return True


def list_iso_files(image: Path) -> Iterator[Entry]:
    """The regular files of an ISO 9660 image by their longest names; an entry is open to reading until the
    iterator ends. Raises ImagegenError for an image that cannot be read.
    """
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    iso = pycdlib.PyCdlib()
    try:
        iso.open(str(image))
        key = "rr_path" if iso.has_rock_ridge() else "joliet_path" if iso.has_joliet() else "iso_path"
        for folder, folders, names in iso.walk(**{key: "/"}):
            folders.sort()
            for name in sorted(names):
                path = f"{folder.rstrip('/')}/{name}"
                record: Any = iso.get_record(**{key: path})
                if record.is_file() and not (key == "rr_path" and record.rock_ridge.is_symlink()):
                    yield Entry(path, record.get_data_length(), _find_opener(iso, image, key, path, record))
        iso.close()
    except PyCdlibException as error:
        raise ImagegenError(f"not a readable ISO 9660 image: {error}") from error


def _find_opener(iso: Any, image: Path, key: str, path: str, record: Any) -> Callable[[], IO[bytes]]:
    """pycdlib does not open what has no inode for it: El Torito's boot catalogue, and empty files."""
    if record.inode is not None:
        return functools.partial(_open_iso, iso, key, path)
    start = record.extent_location() * iso.logical_block_size
    return functools.partial(freespace.open_stretch, image, start, record.get_data_length())


def _open_iso(iso: Any, key: str, path: str) -> IO[bytes]:
    import io

    reader = iso.open_file_from_iso(**{key: path})
    reader.__enter__()
    return cast("IO[bytes]", io.BufferedReader(reader))
