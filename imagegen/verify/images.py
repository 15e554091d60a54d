"""Opens images of every format for reading, without root and without a mount: what files are in there?

qemu-img makes a disk raw, sfdisk reads its partitions, e2fsprogs, mtools, pycdlib and unsquashfs their file
systems. Knows nothing about what the files mean.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from imagegen.errors import ImagegenError
from imagegen.run import Runner, Tool, require_tools
from imagegen.verify import freespace
from imagegen.verify.setids import restore_set_ids

TOOLS = (
    Tool(name="qemu-img", package="qemu-utils", purpose="read a disk image"),
    Tool(name="sfdisk", package="fdisk", purpose="read a partition table"),
    Tool(name="debugfs", package="e2fsprogs", purpose="read an ext4 file system", version_arguments=("-V",)),
    Tool(name="e2fsck", package="e2fsprogs", purpose="check an ext4 file system", version_arguments=("-V",)),
    freespace.TOOL,
    Tool(name="mcopy", package="mtools", purpose="read a FAT file system"),
    Tool(
        name="unsquashfs",
        package="squashfs-tools",
        purpose="read a squashfs file system",
        version_arguments=("-version",),
    ),
)
_TOOL = {tool.name: tool for tool in TOOLS}
#: a program that reads a broken file system may never end
_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file; ``path`` starts with ``/`` inside a file system, after the partition's name."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that could not be read, and why."""

    path: str
    reason: str


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
    elif kind == "gce":
        yield from _list_disk(runner, _unpack_gce(image, work), work)
    elif kind in _QEMU_FORMATS:
        yield from _list_disk(runner, _convert(runner, image, kind, work), work)
    elif kind == "disk":
        yield from _list_disk(runner, image, work)
    elif kind is not None:
        yield from _list_file_system(runner, image, 0, kind, work, "")
    else:
        yield _file_entry(image, image.name)


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
                yield _below(f"{found.path}!", inner)
        except ImagegenError as error:
            yield Trouble(found.path, str(error))
        shutil.rmtree(room)


def _is_image(path: Path) -> bool:
    try:
        return name_format(path) is not None
    except OSError:
        return False


_QEMU_FORMATS = frozenset({"qcow2", "vmdk", "vdi", "vpc", "vhdx"})


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
    return "vdi" if head[0x40:0x44] == b"\x7f\x10\xda\xbe" else _name_raw(head)


def _name_raw(head: bytes) -> str | None:
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


def extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str) -> None:
    """Write a regular member as ``folder/name``, whatever the archive calls it; holes stay holes."""
    member.name = name
    # Python 3.11.2, which Debian 12 has, knows no filters: https://docs.python.org/3/library/tarfile.html#hints
    archive.extraction_filter = getattr(tarfile, "data_filter", lambda info, path: info)
    archive.extract(member, folder)


def _unpack_gce(image: Path, work: Path) -> Path:
    with tarfile.open(image, "r:gz") as archive:
        member = archive.next()
        if member is None or not member.isreg() or member.size > 1 << 41:
            raise ImagegenError(f"{image}: disk.raw is not a file of up to 2 TiB")
        extract_member(archive, member, work, "disk.raw")
    return work / "disk.raw"


def make_raw(runner: Runner, image: Path, kind: str | None, work: Path) -> Path:
    """A disk as a raw file: the image itself or a copy in ``work``; raises ImagegenError when it is none."""
    if kind == "gce":
        return _unpack_gce(image, work)
    if kind in _QEMU_FORMATS:
        return _convert(runner, image, kind, work)
    if kind not in ("disk", "ext"):
        raise ImagegenError(f"{image} is not a disk image that is known here")
    return image


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
            if kind in _QEMU_FORMATS:
                for found in _list_disk(runner, _convert(runner, room / "member", kind, room), room):
                    yield _below(f"{name}!", found)
            else:
                yield _file_entry(room / "member", name)
            shutil.rmtree(room)


def _convert(runner: Runner, image: Path, kind: str | None, work: Path) -> Path:
    """A raw, sparse copy; refuses images that would make qemu-img read other files of this machine."""
    require_tools([_TOOL["qemu-img"]])
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


def _list_disk(runner: Runner, raw: Path, work: Path) -> Iterator[Entry | Trouble]:
    """The files of every partition; a disk without a partition table may be a file system itself."""
    with open(raw, "rb") as handle:
        kind = _name_raw(handle.read(40 * 1024))
    if kind not in (None, "disk"):
        yield from _list_file_system(runner, raw, 0, kind, work, "")
        return
    require_tools([_TOOL["sfdisk"]])
    table = json.loads(runner.run(["sfdisk", "--json", str(raw)], timeout=60).stdout)["partitiontable"]
    sector = int(table.get("sectorsize", 512))
    for number, part in enumerate(table["partitions"], 1):
        start, size = int(part["start"]) * sector, int(part["size"]) * sector
        prefix = f"partition {number}:"
        with open(raw, "rb") as handle:
            handle.seek(start)
            kind = _name_raw(handle.read(40 * 1024))
        room = work / f"partition{number}"
        room.mkdir()
        if kind in ("ext", "fat"):
            yield from _list_file_system(runner, raw, start, kind, room, prefix)
        elif size <= 64 << 20:
            yield Entry(f"{prefix}(raw)", size, functools.partial(freespace.open_stretch, raw, start, size))
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
        require_tools([_TOOL["mcopy"]])
        argv = ["mcopy", "-i", f"{raw}@@{offset}", "-s", "-n", "-Q", "::/", str(tree)]
        troubles = runner.run(argv, timeout=_TIMEOUT_SECONDS, check=False).stderr.splitlines()
    else:
        troubles = extract_squashfs(runner, raw, tree)
    yield from (Trouble(prefix or "/", reason) for reason in troubles)
    for found in walk_folder(tree, own=True):
        yield _below(prefix, found)
    shutil.rmtree(tree, ignore_errors=True)
    if kind == "ext":
        for start, size in freespace.list_leftovers(runner, raw, offset):
            name = f"{prefix}(free space at byte {start - offset:,})"
            yield Entry(name, size, functools.partial(freespace.open_stretch, raw, start, size))


def extract_ext(runner: Runner, raw: Path, offset: int, tree: Path, *, set_ids: bool = False) -> list[str]:
    """Unpack the ext2/3/4 file system at ``offset`` bytes of ``raw`` into the empty folder ``tree``; owners
    are kept when root does it, and set-user-id bits with ``set_ids``. Returns what debugfs could not unpack.
    """
    require_tools([_TOOL["debugfs"], _TOOL["e2fsck"]])
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


def extract_squashfs(runner: Runner, raw: Path, tree: Path) -> list[str]:
    """Unpack a squashfs file system into the empty folder ``tree``; returns what could not be unpacked."""
    require_tools([_TOOL["unsquashfs"]])
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


def _list_iso(runner: Runner, raw: Path, work: Path, prefix: str) -> Iterator[Entry | Trouble]:
    """The files of an ISO; a squashfs in it is opened, too."""
    try:
        for entry in list_iso_files(raw):
            with entry.open() as stream:
                is_squashfs = stream.read(4) == b"hsqs"
                if is_squashfs:
                    stream.seek(0)
                    with open(work / "inner.squashfs", "wb") as target:
                        shutil.copyfileobj(stream, target)
            if is_squashfs:
                inner, name = work / "inner.squashfs", f"{prefix}{entry.path}!"
                yield from _list_file_system(runner, inner, 0, "squashfs", work, name)
            else:
                yield _below(prefix, entry)
    except ImagegenError as error:
        yield Trouble(prefix or "/", str(error))


def walk_folder(folder: Path, *, own: bool = False) -> Iterator[Entry | Trouble]:
    """Every regular file below ``folder``, sorted; links are not followed. ``own`` folders are made
    readable first.
    """
    troubles: list[Trouble] = []

    def note(error: OSError) -> None:
        place = Path(error.filename or folder).relative_to(folder)
        troubles.append(Trouble(f"/{place}", error.strerror or "cannot be read"))

    for here, folders, names in os.walk(folder, onerror=note):
        folders.sort()
        for name in folders if own else ():
            _make_readable(Path(here, name), 0o700)
        for name in sorted(names):
            path = Path(here, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                if own:
                    _make_readable(path, 0o400)
                yield _file_entry(path, f"/{path.relative_to(folder)}")
    yield from troubles


def _make_readable(path: Path, bits: int) -> None:
    status = path.lstat()
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & bits != bits and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) | bits)


def _file_entry(path: Path, name: str) -> Entry:
    return Entry(name, path.stat().st_size, lambda: open(path, "rb"))


def _below(prefix: str, found: Entry | Trouble) -> Entry | Trouble:
    if isinstance(found, Trouble):
        return Trouble(f"{prefix}{found.path}", found.reason)
    return Entry(f"{prefix}{found.path}", found.size, found.open)
