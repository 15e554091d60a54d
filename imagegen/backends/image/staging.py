"""Folders where root file systems are made, and what killed runs left in them: files, and running programs.

Such a folder is locked by its run; one whose lock is free has no owner any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagegen.backends.image.layers import remove_tree
from imagegen.run import Runner

_PREFIX = "imagegen-build-"
_PROC = Path("/proc")
#: with less than this many bytes of free memory, files are put aside on the disk
_PLENTY = 8 << 30
#: of the free memory, for one build; two may run side by side
_SHARE = 0.4
#: seconds that the kernel gets to end what was killed
_PATIENCE = 5.0


def staging_root() -> Path:
    """``TMPDIR``, else ``/var/tmp``: a root file system is too large for a ``/tmp`` in memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108


def choose_memory() -> int | None:
    """Bytes of memory that one build may use in place of a disk, which is many times slower with so many
    small files; None when there is not plenty.
    """
    for line in (_PROC / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            free = int(rest.split()[0]) << 10
            return int(free * _SHARE) if free >= _PLENTY else None
    return None


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for the file where that is possible, else a copy: on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def open_staging(runner: Runner, mode: str) -> Iterator[Path]:
    """A folder that the root of a user namespace can reach, whatever the modes of the user's home are.

    ``mode`` is that of ``rootfs.choose_mode``. The folder ``tmp`` in it is for what programs put
    aside. Everything is removed in the end.
    """
    work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=staging_root()))
    owner = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(owner, fcntl.LOCK_EX)
        (work / "tmp").mkdir()
        if mode == "unshare":
            work.chmod(0o711)
            (work / "tmp").chmod(0o711)
        yield work
    finally:
        remove_staging(runner, work, mode)
        os.close(owner)


def sweep_staging(runner: Runner, mode: str) -> list[str]:
    """End what runs that were killed left running, and remove their folders; returns the names."""
    removed = []
    for work in sorted(staging_root().glob(f"{_PREFIX}*")):
        state = work.lstat()
        if work.is_symlink() or not work.is_dir() or state.st_uid != os.geteuid():
            continue
        owner = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove_staging(runner, work, mode)
            removed.append(work.name)
        finally:
            os.close(owner)
    return removed


def remove_staging(runner: Runner, work: Path, mode: str) -> None:
    """Remove the folder, after what still runs inside has been ended."""
    _end_inside(work)
    if mode == "unshare":
        # what belongs to subordinate ids only the root of their namespace can remove
        with contextlib.suppress(FileNotFoundError):
            names = [str(path) for path in work.iterdir()]
            runner.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *names], check=False, timeout=300)
    mounts = _list_mounts(work)
    if mounts:
        runner.run(["umount", "--lazy", *reversed(mounts)], check=False)
    # never into somebody else's file system
    if not _list_mounts(work):
        remove_tree(work)


def _list_mounts(work: Path) -> list[str]:
    lines = (_PROC / "self/mountinfo").read_text().splitlines()
    places = [line.split()[4].replace("\\040", " ") for line in lines]
    return [place for place in places if place.startswith(f"{work}/")]


def _end_inside(work: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while inside := list(_find_inside(work)):
        for pid in inside:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _find_inside(work: Path) -> Iterator[int]:
    """Processes whose root or current folder lies in ``work``, or that were started for it."""
    mark = f"WORK={work}\0".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            links = (os.readlink(entry / name) for name in ("root", "cwd"))
            is_below = any(link == str(work) or link.startswith(f"{work}/") for link in links)
            if is_below or mark in (entry / "environ").read_bytes():
                yield int(entry.name)
