"""What a scan looks at: one regular file somewhere in an image or a folder, or why it could not be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


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
                yield make_entry(path, f"/{path.relative_to(folder)}")
    yield from troubles


def _make_readable(path: Path, bits: int) -> None:
    status = path.lstat()
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & bits != bits and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) | bits)


def make_entry(path: Path, name: str) -> Entry:
    """A file of this machine, called ``name``."""
    return Entry(name, path.stat().st_size, lambda: open(path, "rb"))


def put_below(prefix: str, found: Entry | Trouble) -> Entry | Trouble:
    """The same with ``prefix`` before its path."""
    if isinstance(found, Trouble):
        return Trouble(f"{prefix}{found.path}", found.reason)
    return Entry(f"{prefix}{found.path}", found.size, found.open)
