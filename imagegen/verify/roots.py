"""The root file system of an image as a folder, read like the machine itself would read it."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imagegen.errors import ImagegenError
from imagegen.run import Runner
from imagegen.verify.disks import extract_member, list_partitions, make_raw
from imagegen.verify.filesystems import copy_squashfs, extract_ext, extract_squashfs, list_iso_files
from imagegen.verify.formats import name_format, name_raw

_MAX_LINKS = 40


def unpack_root(runner: Runner, image: Path, work: Path, *, set_ids: bool = False) -> Path:
    """Unpack the root file system of an image into ``work``; a folder is its own root.

    Root keeps owners, other users own what they unpack. ``set_ids`` keeps set-user-id bits, too: only for
    images that are trusted. Raises ImagegenError when there is none or it
    cannot be unpacked whole.
    """
    if image.is_dir():
        return image
    kind = name_format(image)
    if kind == "ova":
        image = _unpack_vmdk(image, work)
        kind = name_format(image)
    if kind == "iso":
        image = _unpack_squashfs(image, work)
        kind = "squashfs"
    tree = work / "tree"
    tree.mkdir()
    if kind == "squashfs":
        troubles = extract_squashfs(runner, image, tree)
    else:
        raw = make_raw(runner, image, kind, work)
        offset = 0 if kind == "ext" else _find_root_partition(runner, raw)
        troubles = extract_ext(runner, raw, offset, tree, set_ids=set_ids)
    if troubles:
        raise ImagegenError("\n".join([f"{image} cannot be unpacked whole:", *troubles[:10]]))
    return tree


def _unpack_vmdk(image: Path, work: Path) -> Path:
    with tarfile.open(image, "r:") as archive:
        for info in archive:
            if info.isreg() and info.name.endswith(".vmdk"):
                extract_member(archive, info, work, "disk.vmdk")
                return work / "disk.vmdk"
    raise ImagegenError(f"{image} holds no disk")


def _unpack_squashfs(image: Path, work: Path) -> Path:
    for entry in list_iso_files(image):
        if copy_squashfs(entry, work / "root.squashfs"):
            return work / "root.squashfs"
    raise ImagegenError(f"{image} holds no root file system")


def _find_root_partition(runner: Runner, raw: Path) -> int:
    """The offset in bytes of the last partition with an ext file system."""
    for part in reversed(list_partitions(runner, raw)):
        with open(raw, "rb") as handle:
            handle.seek(part.start)
            if name_raw(handle.read(2048)) == "ext":
                return part.start
    raise ImagegenError("no partition of the disk holds an ext file system")


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system in a folder. Links lead where they would on the machine, never out of the folder."""

    folder: Path

    def find(self, path: str, *, follow: bool = False) -> Path:
        """Where ``path`` of the machine lies here; ``follow`` follows a link at its end, too. The result may
        not exist. Raises ImagegenError for links without end.
        """
        place, parts, links = self.folder, list(PurePosixPath(path).parts[::-1]), 0
        while parts:
            part = parts.pop()
            if part in ("/", "."):
                continue
            if part == "..":
                place = place.parent if place != self.folder else place
                continue
            place = place / part
            if place.is_symlink() and (parts or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise ImagegenError(f"{path}: more than {_MAX_LINKS} symbolic links")
                target = os.readlink(place)
                place = self.folder if target.startswith("/") else place.parent
                parts += PurePosixPath(target).parts[::-1]
        return place

    def read(self, path: str) -> bytes:
        """The content of a regular file; empty when there is none."""
        place = self.find(path, follow=True)
        return place.read_bytes() if place.is_file() else b""

    def read_lines(self, path: str) -> list[str]:
        return self.read(path).decode(errors="replace").splitlines()

    def status(self, path: str) -> os.stat_result | None:
        """The path's own status, not that of what it leads to; None when it does not exist."""
        try:
            return self.find(path).lstat()
        except OSError:
            return None

    def list_names(self, path: str) -> list[str]:
        """The names in a folder, sorted; none when there is no such folder."""
        place = self.find(path, follow=True)
        return sorted(os.listdir(place)) if place.is_dir() else []

    def match(self, pattern: str) -> Iterator[str]:
        """The paths that a shell pattern below the root stands for."""
        import glob

        folder, _, last = pattern.rpartition("/")
        for found in sorted(glob.glob(last, root_dir=self.find(f"/{folder}", follow=True))):
            yield f"{folder}/{found}".lstrip("/")


def tell_type(status: os.stat_result) -> str:
    """``file``, ``directory``, ``link`` or ``special file``."""
    for name, test in (("file", stat.S_ISREG), ("directory", stat.S_ISDIR), ("link", stat.S_ISLNK)):
        if test(status.st_mode):
            return name
    return "special file"
