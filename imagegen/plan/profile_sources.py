"""Reads the literal files that profiles name with ``source:``. Never leaves the folder, never blocks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_SOURCE_BYTES = 4 * 1024 * 1024


class SourceFault(Exception):
    """A ``source:`` file cannot be taken; the text says why and ``hint`` what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def read_profile_source(folder: Path, name: str) -> str | bytes:
    """The bytes of ``folder/name``: text when they are UTF-8 without NUL, else bytes.

    Symbolic links are followed as long as they stay inside ``folder``. Raises SourceFault for everything that
    is not a plain, readable, quiet file of at most 4 MiB.
    """
    path = _resolve_inside(folder, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceFault(f"cannot be opened: {_reason(error)}") from None
    with open(descriptor, "rb") as stream:
        before = os.fstat(descriptor)
        _check_kind(before)
        try:
            raw = stream.read(MAX_SOURCE_BYTES + 1)
        except OSError as error:
            raise SourceFault(f"cannot be read: {_reason(error)}") from None
        after = os.fstat(descriptor)
    if len(raw) > MAX_SOURCE_BYTES:
        raise SourceFault("is larger than 4 MiB", "large files belong in a package or a container image")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(
        raw
    ) != after.st_size:
        raise SourceFault("changed while it was read", "run again when it is written")
    try:
        return raw if b"\0" in raw else raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _resolve_inside(folder: Path, name: str) -> str:
    if not name or "\0" in name:
        raise SourceFault("wanted the name of a file")
    if name.startswith(("/", "~")):
        raise SourceFault("wanted a path relative to the folder of the profile", f"the folder is {folder}")
    if ".." in name.split("/"):
        raise SourceFault("traverses outside the folder of the profile", "put the file below that folder")
    try:
        root = os.path.realpath(folder, strict=True)
        path = os.path.realpath(os.path.join(root, name), strict=True)
    except OSError as error:
        raise SourceFault(f"cannot be found: {_reason(error)}") from None
    except ValueError:
        raise SourceFault("wanted the name of a file") from None
    if path != root and not path.startswith(root.rstrip("/") + "/"):
        raise SourceFault(
            "traverses outside the folder of the profile", "a link there may not lead out of it"
        )
    _check_kind(os.stat(path))
    return path


def _check_kind(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise SourceFault("is a folder, wanted a regular file")
    if stat.S_ISFIFO(status.st_mode):
        raise SourceFault("is a pipe, wanted a regular file")
    if not stat.S_ISREG(status.st_mode):
        raise SourceFault("is a device or a socket, wanted a regular file")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise SourceFault("is setuid or setgid", "take the bit away; imagegen never installs such files")


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its links go round in a circle"
    return (error.strerror or str(error)).lower()
