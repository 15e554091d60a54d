"""What Python lacks for an open folder: its file system brought to the disk, a lock with a deadline."""

from __future__ import annotations

import ctypes
import fcntl
import os
import time

_PAUSE_SECONDS = 0.02


def sync_file_system(handle: int) -> None:
    """syncfs(2); where there is none, sync(2). Raises OSError."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        os.sync()
        return
    if call(handle) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def wait_for_lock(handle: int, timeout: float) -> bool:
    """Keep other processes out of an open file or folder, until it is closed; False when one of them stays
    for ``timeout`` seconds. Raises OSError where there are no locks.

    The kernel drops the lock of a process that dies, so there is no stale one.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
