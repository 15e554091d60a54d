"""Container images: pulled by the registry protocol from mirror or registry, packed as one OCI archive each.

In a mirror an image lies under the paths of its registry, such as
``MIRROR/registry.k8s.io/v2/pause/manifests/3.10`` and ``…/v2/pause/blobs/sha256:…``. The digest of the
manifest is pinned in the lock file like any checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagegen.emit import emit_json
from imagegen.errors import UsageError
from imagegen.fetch.cache import Cache, open_cache
from imagegen.fetch.download import Download, FetchedPart
from imagegen.fetch.engine import FetchRun
from imagegen.fetch.failures import MISMATCH, MISSING, NO_CHECKSUM, FetchError, FetchFailure, TransferError
from imagegen.fetch.http import HttpClient
from imagegen.fetch.lockfile import Lock, LockEntry, write_lock
from imagegen.fetch.sources import Source, open_sources
from imagegen.progress import SILENT, Progress

_PLATFORM = ("linux", "amd64")
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_REFERENCE = re.compile(
    r"(?P<registry>[a-z0-9.-]+(?::\d+)?)/(?P<repository>[a-z0-9]+(?:[./_-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@sha256:(?P<digest>[0-9a-f]{64}))?"
)
_MAX_BLOB_SIZE = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """A fully qualified image. ``digest`` is 64 hex digits or empty."""

    text: str
    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def base(self) -> str:
        """The URL below which manifests and blobs are."""
        return f"https://{self.registry}/v2/{self.repository}"

    @property
    def download(self) -> Download:
        """The manifest, which stands for the image in the lock file and in messages."""
        wanted = f"sha256:{self.digest}" if self.digest else self.tag
        return Download(
            name=f"{self.registry}/{self.repository}",
            version=self.tag or wanted,
            url=f"{self.base}/manifests/{wanted}",
        )


def parse_reference(text: str) -> ImageReference:
    """Read ``registry.k8s.io/pause:3.10`` or ``…@sha256:…``; raises UsageError for anything shorter."""
    match = _REFERENCE.fullmatch(text)
    if match is None or "." not in match["registry"] or not (match["tag"] or match["digest"]):
        raise UsageError(f"wanted an image such as registry.k8s.io/pause:3.10, got {text!r}")
    registry, repository = match["registry"], match["repository"]
    if registry == "docker.io":
        registry = "registry-1.docker.io"
        repository = repository if "/" in repository else f"library/{repository}"
    return ImageReference(
        text=text,
        registry=registry,
        repository=repository,
        tag=match["tag"] or "",
        digest=match["digest"] or "",
    )


def fetch_images(
    references: Iterable[str],
    *,
    lock: Lock,
    mirror: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    progress: Progress = SILENT,
    client: HttpClient | None = None,
) -> Mapping[str, FetchedPart]:
    """Every image as an OCI archive in the cache, by reference; ``ctr images import`` and skopeo read it.

    Arguments, pinning and errors are those of ``imagegen.fetch.engine.fetch_downloads``.
    """
    client = client or HttpClient()
    sources = open_sources(mirror, client, offline=offline)
    cache = open_cache(cache_dir)
    images = [parse_reference(text) for text in dict.fromkeys(references)]
    done: dict[str, FetchedPart] = {}
    pins: list[tuple[str, LockEntry]] = []
    failures: list[FetchFailure] = []
    with progress.step("fetching images", len(images)) as step:
        for image in images:
            puller = _Puller(image, cache, lock, sources, client)
            try:
                done[image.text] = puller.pull()
                pins.append((image.download.url, puller.pin))
                step.advance(image.text)
            except TransferError as error:
                failures.append(
                    FetchFailure(
                        download=image.download, code=error.code, reasons=tuple(str(error).splitlines())
                    )
                )
        step.note = f"{len(done)} images"
    if lock.path is not None and pins:
        write_lock(lock.path, pins)
    if failures:
        raise FetchError(failures, len(images))
    return done


class _Puller:
    """One image. ``pin`` is what the lock file is to say once ``pull`` has returned."""

    pin: LockEntry

    def __init__(
        self, image: ImageReference, cache: Cache, lock: Lock, sources: Sequence[Source], client: HttpClient
    ) -> None:
        self.image, self.cache, self.sources, self.client = image, cache, sources, client
        self.pinned = lock.sha256(image.download.url) or image.digest
        self.origin: str = "cache"

    def pull(self) -> FetchedPart:
        """Raises TransferError."""
        sha256 = self.pinned or self._resolve_tag()
        blobs = {sha256: self._fetch_blob("manifests", sha256, None)}
        document = self._read_json(blobs[sha256])
        self.pin = LockEntry(
            name=self.image.download.name,
            version=self.image.download.version,
            sha256=sha256,
            size=blobs[sha256].stat().st_size,
        )
        if document.get("mediaType") in _INDEXES or "manifests" in document:
            sha256 = self._choose_platform(document)
            blobs[sha256] = self._fetch_blob("manifests", sha256, None)
            document = self._read_json(blobs[sha256])
        layers = document.get("layers")
        if not isinstance(layers, list) or not isinstance(document.get("config"), dict):
            raise TransferError(
                f"{self.image.text}: the manifest names no config and layers", code=NO_CHECKSUM
            )
        for entry in (document["config"], *layers):
            digest = self._digest_of(entry)
            blobs[digest] = self._fetch_blob("blobs", digest, entry.get("size"))
        return self._pack(sha256, document, blobs)

    def _resolve_tag(self) -> str:
        """The digest of what the tag points to now; what it pointed to last time when nobody can be asked."""
        url = self.image.download.url
        reasons = []
        for source in self.sources:
            place = source.place(url)
            try:
                body = source.read_text(url).encode()
            except TransferError as error:
                remembered = None if error.permanent else self.cache.remembered_sum(place)
                if remembered:
                    return remembered
                reasons.append(str(error))
                continue
            sha256 = hashlib.sha256(body).hexdigest()
            self.cache.remember_sum(place, sha256)
            self.cache.remember_sum(url, sha256)
            return sha256
        if not self.sources and (remembered := self.cache.remembered_sum(url)):
            return remembered
        raise TransferError("\n".join(reasons) or "not in the cache, and nobody may be asked", code=MISSING)

    def _fetch_blob(self, kind: str, sha256: str, size: object) -> Path:
        """A manifest or a blob by its digest."""
        limit = size if isinstance(size, int) and 0 <= size <= _MAX_BLOB_SIZE else _MAX_BLOB_SIZE
        url = f"{self.image.base}/{kind}/sha256:{sha256}"
        entry = LockEntry(name=self.image.text, version=sha256[:12], sha256=sha256, size=limit)
        run = FetchRun(self.cache, Lock(None, {url: entry}), self.sources, self.client.cancel)
        outcome = run.fetch_one(Download(name=self.image.text, version=f"{kind} {sha256[:12]}", url=url))
        if isinstance(outcome, FetchFailure):
            raise TransferError("\n".join(outcome.reasons), code=outcome.code)
        if outcome.origin != "cache":
            self.origin = outcome.origin
        return outcome.path

    def _read_json(self, path: Path) -> dict[str, Any]:
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise TransferError(f"{self.image.text}: the manifest is not JSON", code=NO_CHECKSUM)
        return document

    def _choose_platform(self, index: Mapping[str, Any]) -> str:
        for entry in index.get("manifests", ()):
            platform = entry.get("platform", {}) if isinstance(entry, dict) else {}
            if (platform.get("os"), platform.get("architecture")) == _PLATFORM:
                return self._digest_of(entry)
        raise TransferError(f"{self.image.text}: there is none for {'/'.join(_PLATFORM)}", code=MISSING)

    def _digest_of(self, entry: object) -> str:
        match = _DIGEST.fullmatch(str(entry.get("digest"))) if isinstance(entry, dict) else None
        if match is None:
            raise TransferError(f"{self.image.text}: wanted a sha256 digest, got {entry!r}", code=MISMATCH)
        return match[1]

    def _pack(self, sha256: str, manifest: Mapping[str, Any], blobs: Mapping[str, Path]) -> FetchedPart:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json"),
                    "digest": f"sha256:{sha256}",
                    "size": blobs[sha256].stat().st_size,
                    # containerd names the image by the first, skopeo by the second
                    "annotations": {
                        "io.containerd.image.name": self.image.text,
                        "org.opencontainers.image.ref.name": self.image.tag or "latest",
                    },
                }
            ],
        }
        texts = {"index.json": emit_json(index), "oci-layout": '{"imageLayoutVersion": "1.0.0"}\n'}
        partial = self.cache.partial(f"{self.image.text}@{sha256}.tar")
        with self.cache.lock(f"{self.image.text}.tar", self.client.cancel):
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
                for name, text in sorted(texts.items()):
                    archive.addfile(_entry(name, len(text)), io.BytesIO(text.encode()))
                for digest, path in sorted(blobs.items()):
                    if digest != self.pin.sha256 or digest == sha256:
                        with path.open("rb") as stream:
                            archive.addfile(_entry(f"blobs/sha256/{digest}", path.stat().st_size), stream)
            with partial.open("rb") as stream:
                packed = hashlib.file_digest(stream, "sha256").hexdigest()
            path = self.cache.adopt(partial, packed)
        return FetchedPart(
            download=self.image.download,
            path=path,
            sha256=packed,
            size=path.stat().st_size,
            origin=self.origin,  # type: ignore[arg-type]
        )


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
