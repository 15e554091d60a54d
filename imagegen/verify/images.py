"""Every file of an image in any format, of its partitions, and of the images in a folder, one after another.

Needs no root and no mount. Knows nothing about what the files mean.
"""

from __future__ import annotations

import functools
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from imagegen.errors import ImagegenError
from imagegen.run import Runner
from imagegen.verify import freespace
from imagegen.verify.disks import extract_member, list_partitions, make_raw
from imagegen.verify.entries import Entry, Trouble, make_entry, put_below, walk_folder
from imagegen.verify.filesystems import (
    copy_squashfs,
    extract_ext,
    extract_fat,
    extract_squashfs,
    list_iso_files,
)
from imagegen.verify.formats import DISK_FORMATS, QEMU_FORMATS, name_format, name_raw


def list_entries(runner: Runner, image: Path, work: Path) -> Iterator[Entry | Trouble]:
    """Every regular file in an image, a folder, or the file itself when it is neither; in a stable order.

    ``work`` is an empty folder for what must be unpacked: up to the size of the image's content. Raises
    MissingToolError, ImagegenError for an image that refers to other files, CommandError when a tool fails.
    """
    if image.is_dir():
        yield from _list_folder(runner, image, work)
        return
    kind = name_format(image)
    if kind == "ova":
        yield from _list_ova(runner, image, work)
    elif kind in DISK_FORMATS:
        yield from _list_disk(runner, make_raw(runner, image, kind, work), work)
    elif kind is not None:
        yield from _list_file_system(runner, image, 0, kind, work, "")
    else:
        yield make_entry(image, image.name)


#: files in a folder that are opened as images when they are some
_IMAGE_NAMES = (
    ".iso",
    ".qcow2",
    ".raw",
    ".img",
    ".vmdk",
    ".vdi",
    ".vhd",
    ".ova",
    ".tar.gz",
    ".ext4",
    ".squashfs",
)


def _list_folder(runner: Runner, folder: Path, work: Path) -> Iterator[Entry | Trouble]:
    """The files of a folder, such as an output folder, and those of the images in it."""
    for found in walk_folder(folder):
        image = folder / found.path.lstrip("/")
        if isinstance(found, Trouble) or not found.path.endswith(_IMAGE_NAMES) or not _is_image(image):
            yield found
            continue
        room = work / "room"
        room.mkdir()
        try:
            for inner in list_entries(runner, image, room):
                yield put_below(f"{found.path}!", inner)
        except ImagegenError as error:
            yield Trouble(found.path, str(error))
        shutil.rmtree(room)


def _is_image(path: Path) -> bool:
    try:
        return name_format(path) is not None
    except OSError:
        return False


def _list_ova(runner: Runner, image: Path, work: Path) -> Iterator[Entry | Trouble]:
    with tarfile.open(image, "r:") as archive:
        for number, info in enumerate(archive):
            if not info.isreg() or number >= 64:
                yield Trouble(info.name, "not one of the up to 64 regular files of an OVA")
                continue
            room = work / f"member{number}"
            room.mkdir()
            name = info.name
            extract_member(archive, info, room, "member")
            kind = name_format(room / "member")
            if kind in QEMU_FORMATS:
                for found in _list_disk(runner, make_raw(runner, room / "member", kind, room), room):
                    yield put_below(f"{name}!", found)
            else:
                yield make_entry(room / "member", name)
            shutil.rmtree(room)


def _list_disk(runner: Runner, raw: Path, work: Path) -> Iterator[Entry | Trouble]:
    """The files of every partition; a disk without a partition table may be a file system itself."""
    with open(raw, "rb") as handle:
        kind = name_raw(handle.read(40 * 1024))
    if kind not in (None, "disk"):
        yield from _list_file_system(runner, raw, 0, kind, work, "")
        return
    for part in list_partitions(runner, raw):
        prefix = f"partition {part.number}:"
        with open(raw, "rb") as handle:
            handle.seek(part.start)
            kind = name_raw(handle.read(40 * 1024))
        room = work / f"partition{part.number}"
        room.mkdir()
        if kind in ("ext", "fat"):
            yield from _list_file_system(runner, raw, part.start, kind, room, prefix)
        elif part.size <= 64 << 20:
            opener = functools.partial(freespace.open_stretch, raw, part.start, part.size)
            yield Entry(f"{prefix}(raw)", part.size, opener)
        else:
            yield Trouble(prefix, "no file system that is known here")
        shutil.rmtree(room, ignore_errors=True)


def _list_file_system(
    runner: Runner, raw: Path, offset: int, kind: str | None, work: Path, prefix: str
) -> Iterator[Entry | Trouble]:
    if kind == "iso":
        yield from _list_iso(runner, raw, work, prefix)
        return
    tree = work / "tree"
    tree.mkdir()
    if kind == "ext":
        troubles = extract_ext(runner, raw, offset, tree)
    elif kind == "fat":
        troubles = extract_fat(runner, raw, offset, tree)
    else:
        troubles = extract_squashfs(runner, raw, tree)
    yield from (Trouble(prefix or "/", reason) for reason in troubles)
    for found in walk_folder(tree, own=True):
        yield put_below(prefix, found)
    shutil.rmtree(tree, ignore_errors=True)
    if kind == "ext":
        for start, size in freespace.list_leftovers(runner, raw, offset):
            name = f"{prefix}(free space at byte {start - offset:,})"
            yield Entry(name, size, functools.partial(freespace.open_stretch, raw, start, size))


def _list_iso(runner: Runner, raw: Path, work: Path, prefix: str) -> Iterator[Entry | Trouble]:
    """The files of an ISO; a squashfs in it is opened, too."""
    try:
        for entry in list_iso_files(raw):
            inner = work / "inner.squashfs"
            if copy_squashfs(entry, inner):
                yield from _list_file_system(runner, inner, 0, "squashfs", work, f"{prefix}{entry.path}!")
            else:
                yield put_below(prefix, entry)
    except ImagegenError as error:
        yield Trouble(prefix or "/", str(error))
