"""What is to be fetched, and what was fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file of an official release site.

    ``url`` is https and has no query. ``checksum_url`` is the site's own checksum file in any format that
    ``imagegen.fetch.checksums`` reads; empty when the site has none, and then the first fetch pins what it
    got.
    """

    name: str
    version: str
    url: str
    checksum_url: str = ""

    @property
    def file_name(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


#: where a part came from
Origin = Literal["cache", "mirror", "release site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPart:
    """A verified file in the cache. ``path`` is named by its sum; copy from it, never change it."""

    download: Download
    path: Path
    sha256: str
    size: int
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """Everything that was asked for: parts by URL, container images (one OCI archive each) by reference."""

    parts: Mapping[str, FetchedPart]
    images: Mapping[str, FetchedPart] = field(default_factory=dict)

    def of(self, download: Download) -> FetchedPart:
        """Raises KeyError when ``download`` was not part of the request."""
        return self.parts[download.url]

    @property
    def size(self) -> int:
        """Bytes of everything together."""
        return sum(part.size for part in self.all)

    @property
    def all(self) -> tuple[FetchedPart, ...]:
        """Parts, then images."""
        return (*self.parts.values(), *self.images.values())

    def count(self, origin: Origin) -> int:
        return sum(part.origin == origin for part in self.all)
