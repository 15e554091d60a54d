"""``imagegen.lock``: the checksum of every part, pinned at its first fetch and binding from then on.

Lies beside the cluster file and belongs into version control. Canonical JSON; entries of other versions stay,
so that several cluster files may share it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagegen.emit import emit_json
from imagegen.errors import ImagegenError, UsageError
from imagegen.fetch.failures import BAD_LOCK, MISMATCH

_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_SIZE = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """``size`` in bytes."""

    name: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Lock:
    """Pinned parts by official URL. ``path`` is None for a lock that lives in memory only."""

    path: Path | None = None
    entries: Mapping[str, LockEntry] = field(default_factory=dict)

    @property
    def checksums(self) -> dict[str, str]:
        """Every pinned sum by URL."""
        return {url: entry.sha256 for url, entry in self.entries.items()}

    def sha256(self, url: str) -> str | None:
        """The pinned sum of the part at ``url``, or None when it was never fetched."""
        entry = self.entries.get(url)
        return entry.sha256 if entry else None


def lock_path(cluster_file: str | Path) -> Path:
    """``imagegen.lock`` beside the cluster file."""
    return Path(cluster_file).parent / "imagegen.lock"


def read_lock(path: Path) -> Lock:
    """The lock at ``path``; empty when there is none. Raises UsageError when the file is not a lock."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        return Lock(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    try:
        if len(raw) > _MAX_SIZE:
            raise ValueError("it is larger than 16 MiB")
        return Lock(path, _read_entries(json.loads(raw)))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"error[{BAD_LOCK}]: {path} is not a lock file: {error}",
            hint="restore it from version control, or remove it to pin every part anew",
        ) from error


def _read_entries(document: object) -> dict[str, LockEntry]:
    if not isinstance(document, dict) or not isinstance(document.get("parts"), dict):
        raise ValueError("wanted an object with the keys 'version' and 'parts'")
    if document.get("version") != _VERSION:
        raise ValueError(f"wanted version {_VERSION}, got {document.get('version')!r}")
    entries: dict[str, LockEntry] = {}
    for url, entry in document["parts"].items():
        if not isinstance(entry, dict):
            raise ValueError(f"the entry of {url} is not an object")
        name, version, sha256, size = (entry.get(key) for key in ("name", "version", "sha256", "size"))
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"the entry of {url} holds no SHA-256 sum")
        if not isinstance(name, str) or not isinstance(version, str):
            raise ValueError(f"the entry of {url} holds no name or version")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"the entry of {url} holds no size")
        entries[url] = LockEntry(name=name, version=version, sha256=sha256, size=size)
    return entries


def write_lock(path: Path, pins: Iterable[tuple[str, LockEntry]]) -> Lock:
    """Add ``pins`` (URL and entry) to the lock at ``path``, atomically and safe against other writers.

    A file that would not change is not touched. Raises ImagegenError when another sum was pinned meanwhile.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    try:
        # The folder itself is the lock, so that nothing is left behind and a dead process holds nothing.
        fcntl.flock(folder, fcntl.LOCK_EX)
        old = read_lock(path)
        entries = dict(old.entries)
        for url, entry in pins:
            pinned = entries.setdefault(url, entry)
            if pinned.sha256 != entry.sha256:
                raise ImagegenError(
                    f"error[{MISMATCH}]: {entry.name} {entry.version}: "
                    f"{path.name} wants sha256 {pinned.sha256}, got {entry.sha256}"
                )
        lock = Lock(path, entries)
        if entries != old.entries:
            _replace(path, render_lock(lock))
            os.fsync(folder)
        return lock
    finally:
        os.close(folder)


def render_lock(lock: Lock) -> str:
    """The text of the lock file."""
    parts = {
        url: {"name": e.name, "version": e.version, "sha256": e.sha256, "size": e.size}
        for url, e in lock.entries.items()
    }
    return emit_json({"version": _VERSION, "parts": parts})


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ImagegenError(f"cannot write {path}: {error.strerror}") from error
