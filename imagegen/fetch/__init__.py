"""Downloads of release parts: cache, mirror, checksums, resume, retry, lock file, and members of archives.

Knows URLs and sums, not Kubernetes. ``fetch_downloads`` is in ``imagegen.fetch.engine``; this package imports
no network code by itself, so that a reader of the lock file stays fast.
"""

from __future__ import annotations

from imagegen.fetch.download import Download, FetchedPart, FetchResult
from imagegen.fetch.failures import FetchError, FetchFailure
from imagegen.fetch.lockfile import Lock, LockEntry, lock_path, read_lock

__all__ = [
    "Download",
    "FetchError",
    "FetchFailure",
    "FetchResult",
    "FetchedPart",
    "Lock",
    "LockEntry",
    "lock_path",
    "read_lock",
]
