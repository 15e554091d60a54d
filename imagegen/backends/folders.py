"""Folders and files below an open folder, reached without following symbolic links."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from imagegen.errors import ImagegenError, UsageError
from imagegen.openfolder import wait_for_lock

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: opening a FIFO must not hang
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def open_below(root: int, folder: str, make: dict[str, bool] | None = None) -> Iterator[int | None]:
    """The folder ``folder`` below the open folder ``root``, or None when it is not there.

    With ``make`` it is made, whatever the umask: 0700 when ``make`` says True for its path, else 0755; its
    parents are noted in ``make``, so that each is made once. Raises OSError: ELOOP or ENOTDIR when a part of
    the path is a symbolic link.
    """
    handle = os.dup(root)
    try:
        inside = ""
        for part in folder.split("/") if folder else ():
            inside = f"{inside}/{part}" if inside else part
            if make is not None and (inside == folder or inside not in make):
                _make_folder(part, handle, private=make.setdefault(inside, False))
            try:
                below = os.open(part, OPEN_FOLDER, dir_fd=handle)
            except FileNotFoundError:
                break
            os.close(handle)
            handle = below
        else:
            yield handle
            return
        yield None
    finally:
        os.close(handle)


def create_file(name: str, folder: int, mode: int) -> int:
    """A new file open for writing, with its mode whatever the umask. Raises OSError."""
    handle = os.open(name, _OPEN_NEW, mode, dir_fd=folder)
    os.fchmod(handle, mode)
    return handle


def write_all(handle: int, data: bytes) -> None:
    """Write every byte of ``data``; raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_file(name: str, folder: int, mode: int, data: bytes) -> None:
    """A new file with these bytes. Raises OSError."""
    handle = create_file(name, folder, mode)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)


def lock_folder(handle: int, path: Path, timeout: float) -> None:
    """Keep other runs out of an open folder, until it is closed; raises ImagegenError after ``timeout``
    seconds.
    """
    try:
        is_ours = wait_for_lock(handle, timeout)
    except OSError:
        # some network file systems have no locks on folders
        return
    if not is_ours:
        raise ImagegenError(
            f"another imagegen has been writing {path} for {timeout:.0f} seconds",
            hint="wait for it, or end it, and run again",
        )


def hash_file(name: str, folder: int) -> str:
    """SHA-256 of a regular file in an open folder; raises OSError for anything else."""
    handle = os.open(name, _OPEN_FILE, dir_fd=folder)
    with open(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_mode(name: str, folder: int, mode: int) -> None:
    """Give a file or folder in an open folder its mode, when it has another one. Raises OSError."""
    present = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_IMODE(present) != mode and not stat.S_ISLNK(present):
        os.chmod(name, mode, dir_fd=folder)


def _make_folder(name: str, parent: int, *, private: bool) -> None:
    mode = 0o700 if private else 0o755
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        if not private:
            return
    set_mode(name, parent, mode)


def read_file(name: str, folder: int, limit: int = 1 << 40) -> bytes:
    """The bytes of a regular file; raises OSError for anything else."""
    handle = os.open(name, _OPEN_FILE, dir_fd=folder)
    with open(handle, "rb", buffering=0) as stream:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size > limit:
            raise OSError(errno.EINVAL, "not a regular file" if state.st_size <= limit else "too large")
        return stream.read()


def empty_folder(handle: int) -> None:
    """Remove whatever is in an open folder, folders included, following no symbolic link."""
    for name in os.listdir(handle):
        with contextlib.suppress(OSError):
            try:
                os.unlink(name, dir_fd=handle)
            except IsADirectoryError:
                below = os.open(name, OPEN_FOLDER, dir_fd=handle)
                try:
                    empty_folder(below)
                finally:
                    os.close(below)
                os.rmdir(name, dir_fd=handle)


def describe(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, and imagegen follows none out of the output folder"
    if error.errno == errno.ENOTDIR:
        return "a part of it is not a folder, or a symbolic link"
    return (error.strerror or str(error)).lower()


def folder_error(path: Path, error: OSError) -> UsageError:
    if path.is_symlink():
        reason, hint = "it is a symbolic link", f"name the folder itself: {os.path.realpath(path)}"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        reason, hint = "it is not a folder", "choose another name with -o OUT"
    elif error.errno == errno.EROFS:
        reason, hint = "its file system is read-only", "choose another folder with -o OUT"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason, hint = "you may not write there", "choose another folder with -o OUT"
    else:
        reason, hint = (error.strerror or str(error)).lower(), "choose another folder with -o OUT"
    return UsageError(f"cannot use {path} as the output folder: {reason}", hint=hint)
