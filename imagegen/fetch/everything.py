"""Parts and images together: one answer, and one error that lists all that is missing of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from imagegen.fetch.download import Download, FetchResult
from imagegen.fetch.engine import fetch_downloads
from imagegen.fetch.failures import FetchError, FetchFailure
from imagegen.fetch.http import HttpClient
from imagegen.fetch.images import fetch_images
from imagegen.fetch.lockfile import Lock
from imagegen.progress import SILENT, Progress


def fetch_everything(
    downloads: Iterable[Download],
    images: Iterable[str],
    *,
    lock: Lock,
    mirror: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    progress: Progress = SILENT,
) -> FetchResult:
    """``fetch_downloads`` and ``fetch_images``, with their arguments and errors; ``images`` by reference."""
    wanted, references = list(downloads), list(dict.fromkeys(images))
    failures: list[FetchFailure] = []
    result = FetchResult(parts={})
    client = HttpClient()
    try:
        result = fetch_downloads(
            wanted,
            lock=lock,
            mirror=mirror,
            cache_dir=cache_dir,
            offline=offline,
            progress=progress,
            client=client,
        )
    except FetchError as error:
        failures += error.failures
    try:
        found = fetch_images(
            references,
            lock=lock,
            mirror=mirror,
            cache_dir=cache_dir,
            offline=offline,
            progress=progress,
            client=client,
        )
        result = dataclasses.replace(result, images=found)
    except FetchError as error:
        failures += error.failures
    if failures:
        raise FetchError(failures, len({download.url for download in wanted}) + len(references))
    return result
