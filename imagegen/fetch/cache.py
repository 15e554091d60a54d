"""The cache of parts: files named by their SHA-256, verified before every use.

Layout: ``sha256/SUM`` the parts, ``partial/KEY`` unfinished downloads, ``sums/KEY`` the checksums that
release sites gave (so that a warm cache works offline), ``locks/KEY`` held while one process fetches a part.
Safe against kill -9 and against other processes: a file has its final name only when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagegen.errors import UsageError
from imagegen.fetch.http import Cancelled

_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_cache_dir() -> Path:
    """``IMAGEGEN_CACHE``, else ``imagegen/parts`` in the user's cache folder."""
    if chosen := os.environ.get("IMAGEGEN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or ""
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return home / "imagegen" / "parts"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Cache:
    """``root`` is made when needed. Nothing in it is trusted without its sum."""

    root: Path

    def prepare(self) -> None:
        """Make the folders; raises UsageError when that is not possible."""
        try:
            for name in ("sha256", "partial", "sums", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot use the cache {self.root}: {error.strerror}") from error

    def find(self, sha256: str) -> Path | None:
        """The part with that sum, its bytes just verified; a corrupt file is removed."""
        path = self.root / "sha256" / sha256
        try:
            if path.is_symlink() or not path.is_file():
                return None
            if hash_file(path) == sha256:
                return path
            path.unlink(missing_ok=True)
        except OSError:
            return None
        return None

    def partial(self, url: str) -> Path:
        """Where the unfinished download of ``url`` lies."""
        return self.root / "partial" / _key(url)

    def adopt(self, partial: Path, sha256: str) -> Path:
        """Give a verified download its final name."""
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.chmod(0o444)
        path = self.root / "sha256" / sha256
        partial.replace(path)
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return path

    def remembered_sum(self, url: str) -> str | None:
        """The checksum that ``url`` gave last time."""
        try:
            text = (self.root / "sums" / _key(url)).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        sha256, _, place = text.rstrip("\n").partition("  ")
        return sha256 if _SHA256.fullmatch(sha256) and place == url else None

    def remember_sum(self, url: str, sha256: str) -> None:
        """Keep what ``url`` gave, for a day without network. Failing to keep it fails nothing."""
        path = self.root / "sums" / _key(url)
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            partial.write_text(f"{sha256}  {url}\n", encoding="ascii")
            partial.replace(path)
        except (OSError, UnicodeEncodeError):
            partial.unlink(missing_ok=True)

    @contextmanager
    def lock(self, url: str, cancel: threading.Event) -> Iterator[None]:
        """Hold ``url`` against other processes and threads. The kernel frees the lock of a dead process."""
        handle = os.open(self.root / "locks" / _key(url), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancel.wait(0.1):
                        raise Cancelled from None
            yield
        finally:
            os.close(handle)


def open_cache(folder: Path | None) -> Cache:
    """The cache in ``folder``, or in the usual place, ready to be written. Raises UsageError."""
    cache = Cache((folder or default_cache_dir()).absolute())
    cache.prepare()
    return cache
