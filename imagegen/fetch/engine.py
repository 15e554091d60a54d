"""Fetches parts from cache, mirror and release site; verifies, pins, reports everything missing at once."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from imagegen.fetch.cache import Cache, hash_file, open_cache
from imagegen.fetch.checksums import ChecksumError, parse_checksum
from imagegen.fetch.download import Download, FetchedPart, FetchResult
from imagegen.fetch.failures import (
    MISMATCH,
    MISSING,
    NO_CHECKSUM,
    NO_SPACE,
    FetchError,
    FetchFailure,
    TransferError,
)
from imagegen.fetch.http import HttpClient
from imagegen.fetch.lockfile import Lock, LockEntry, write_lock
from imagegen.fetch.sources import Source, mirror_path, open_sources
from imagegen.progress import SILENT, Progress

#: no part of any release comes near this
MAX_PART_SIZE = 4 << 30
#: how much longer than its pinned size a part may be for both sums to be named
_SLACK = 64 << 20
_WORKERS = 4


def fetch_downloads(
    downloads: Iterable[Download],
    *,
    lock: Lock,
    mirror: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    progress: Progress = SILENT,
    client: HttpClient | None = None,
) -> FetchResult:
    """Bring every download into the cache, verified, and pin its sum in the lock file.

    ``mirror`` is a folder or URL laid out as ``imagegen.fetch.sources`` says; ``offline`` asks no release
    site. Raises FetchError that lists every missing part, and UsageError for a mirror or cache that cannot be
    used. Parts that did come are in the cache and in the lock even then.
    """
    client = client or HttpClient()
    sources = open_sources(mirror, client, offline=offline)
    cache = open_cache(cache_dir)
    wanted = list({download.url: download for download in downloads}.values())
    run = FetchRun(cache, lock, sources, client.cancel)
    parts, failures = run.fetch_all(wanted, progress)
    if lock.path is not None and parts:
        write_lock(lock.path, [(part.download.url, _entry(part)) for part in parts])
    if failures:
        raise FetchError(failures, len(wanted))
    return FetchResult(parts={part.download.url: part for part in parts})


def _entry(part: FetchedPart) -> LockEntry:
    return LockEntry(
        name=part.download.name, version=part.download.version, sha256=part.sha256, size=part.size
    )


@dataclass(frozen=True, slots=True)
class FetchRun:
    """What one run knows; ``fetch_one`` may be called from several threads."""

    cache: Cache
    lock: Lock
    sources: Sequence[Source]
    cancel: threading.Event

    def fetch_all(
        self, wanted: Sequence[Download], progress: Progress
    ) -> tuple[list[FetchedPart], list[FetchFailure]]:
        parts: dict[str, FetchedPart] = {}
        failures: dict[str, FetchFailure] = {}
        with progress.step("fetching parts", len(wanted)) as step:
            for outcome in self._fetch_in_threads(wanted):
                if isinstance(outcome, FetchFailure):
                    failures[outcome.download.url] = outcome
                else:
                    parts[outcome.download.url] = outcome
                    step.advance(f"{outcome.download} ({outcome.origin})")
            step.note = f"{len(parts)} parts, {sum(part.size for part in parts.values()) >> 20} MiB"
        order = [download.url for download in wanted]
        return [parts[u] for u in order if u in parts], [failures[u] for u in order if u in failures]

    def _fetch_in_threads(self, wanted: Sequence[Download]) -> Iterator[FetchedPart | FetchFailure]:
        """Outcomes in the order in which they come."""
        waiting: SimpleQueue[Download | None] = SimpleQueue()
        done: SimpleQueue[FetchedPart | FetchFailure | BaseException] = SimpleQueue()

        def work() -> None:
            while (download := waiting.get()) is not None:
                try:
                    done.put(self.fetch_one(download))
                except BaseException as error:
                    done.put(error)

        for entry in (*wanted, *[None] * _WORKERS):
            waiting.put(entry)
        # Daemons: nobody who presses Ctrl-C waits for a silent server. All they leave is partial files.
        for number in range(min(_WORKERS, len(wanted))):
            Thread(target=work, name=f"fetch-{number}", daemon=True).start()
        try:
            for _ in wanted:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        except BaseException:
            self.cancel.set()
            raise

    def fetch_one(self, download: Download) -> FetchedPart | FetchFailure:
        """One part from the first place that has it. A wrong sum ends the search: nobody papers over it."""
        mirror_path(download.url)
        with self.cache.lock(download.url, self.cancel):
            pinned = self.lock.entries.get(download.url)
            if pinned and (path := self.cache.find(pinned.sha256)):
                return _fetched(download, path, pinned.sha256, "cache")
            reasons: list[TransferError] = []
            for source in self.sources:
                try:
                    return self._fetch_from(source, download, pinned)
                except TransferError as error:
                    reasons.append(error)
                    if error.code in {MISMATCH, NO_SPACE}:
                        break
            if not self.sources and not (found := self._from_memory(download, pinned)):
                reasons.append(
                    TransferError("not in the cache, and neither a mirror nor the network may be asked")
                )
            elif not self.sources and found:
                return found
        worst = next((r.code for r in reversed(reasons) if r.code != MISSING), MISSING)
        return FetchFailure(download=download, code=worst, reasons=tuple(map(str, reasons)))

    def _from_memory(self, download: Download, pinned: LockEntry | None) -> FetchedPart | None:
        if pinned or not download.checksum_url:
            return None
        sha256 = self.cache.remembered_sum(download.checksum_url)
        path = self.cache.find(sha256) if sha256 else None
        return _fetched(download, path, sha256, "cache") if path and sha256 else None

    def _fetch_from(self, source: Source, download: Download, pinned: LockEntry | None) -> FetchedPart:
        if pinned:
            sha256, promise = pinned.sha256, "imagegen.lock"
        else:
            sha256, promise = self._promised_sum(source, download)
            if sha256 and (path := self.cache.find(sha256)):
                return _fetched(download, path, sha256, "cache")
        partial = self.cache.partial(source.place(download.url))
        limit = pinned.size + _SLACK if pinned else MAX_PART_SIZE
        try:
            got = self._download(source, download, partial, limit, sha256)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _disk_error(self.cache.root, error) from error
        except TransferError as error:
            if error.permanent:
                partial.unlink(missing_ok=True)
            raise
        if sha256 and got != sha256:
            size = partial.stat().st_size
            partial.unlink(missing_ok=True)
            place = source.place(download.url)
            raise TransferError(
                f"{promise} wants sha256 {sha256}, got {got} ({size} bytes) from {place}",
                code=MISMATCH,
                permanent=True,
            )
        return _fetched(download, self.cache.adopt(partial, got), got, source.origin)

    def _download(self, source: Source, download: Download, partial: Path, limit: int, sha256: str) -> str:
        """The sum of what came. A wrong one after resuming starts anew: the old bytes may be stale."""
        resumed = source.download(download.url, partial, limit=limit, on_bytes=lambda size: None)
        got = hash_file(partial)
        if resumed and got != sha256:
            partial.unlink()
            source.download(download.url, partial, limit=limit, on_bytes=lambda size: None)
            got = hash_file(partial)
        return got

    def _promised_sum(self, source: Source, download: Download) -> tuple[str, str]:
        """The sum in the source's own checksum file, and its place; both empty if the site publishes none."""
        if not download.checksum_url:
            return "", ""
        place = source.place(download.checksum_url)
        try:
            sha256 = parse_checksum(source.read_text(download.checksum_url), download.file_name)
        except ChecksumError as error:
            raise TransferError(f"{place}: {error}", code=NO_CHECKSUM, permanent=True) from error
        except TransferError as error:
            remembered = None if error.permanent else self.cache.remembered_sum(place)
            if remembered is None or self.cache.find(remembered) is None:
                raise
            return remembered, place
        self.cache.remember_sum(place, sha256)
        return sha256, place


def _fetched(download: Download, path: Path, sha256: str, origin: str) -> FetchedPart:
    return FetchedPart(
        download=download,
        path=path,
        sha256=sha256,
        size=path.stat().st_size,
        origin=origin,  # type: ignore[arg-type]
    )


def _disk_error(root: Path, error: OSError) -> TransferError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(root).free
        return TransferError(f"{root}: the disk is full, {free} bytes free", code=NO_SPACE, permanent=True)
    return TransferError(f"{root}: {error.strerror or error}", permanent=True)
